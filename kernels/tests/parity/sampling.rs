//! Drawing tokens: distribution, cuts, masks, odd logits.
