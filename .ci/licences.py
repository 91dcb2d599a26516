"""Every dependency's licence is compatible with Apache-2.0: `cargo metadata | licences.py`.

The list is the one in deny.toml, which `cargo deny check licenses` reads too.
"""

import json
import re
import sys
import tomllib


def allowed(expression, licences):
    """Whether an SPDX expression can be met with the listed licences."""
    for alternative in re.split(r"\s+OR\s+|/", expression.replace("(", "").replace(")", "")):
        if all(part.strip() in licences for part in re.split(r"\s+AND\s+", alternative)):
            return True
    return False


def main():
    """Prints what is not allowed and ends with 1 if anything is."""
    with open("deny.toml", "rb") as file:
        licences = set(tomllib.load(file)["licenses"]["allow"])
    packages = json.load(sys.stdin)["packages"]
    faults = [
        f"{package['name']} {package['version']}: {package['license']}"
        for package in packages
        if not allowed(package["license"] or "none", licences)
    ]
    print("\n".join(faults) or f"{len(packages)} packages, all licences allowed")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
