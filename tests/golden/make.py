"""Writes all golden data: `python make.py` with the packages of requirements.txt."""

import make_expected
import make_models
import make_templates
import make_tokenizers

make_tokenizers.main()
make_models.main()
make_expected.main()
make_templates.main()
