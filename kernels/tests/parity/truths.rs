//! What the reference itself must satisfy, from outside knowledge.
