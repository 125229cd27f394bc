//! Local service discovery (BEP 14).
