//! Tests of the swarm through its inputs and outputs.

mod harness;

mod connecting;
mod downloading;
mod hostile;
mod judging;
mod seeding;
mod serving;
