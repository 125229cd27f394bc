//! Strict bencode (BEP 3).
