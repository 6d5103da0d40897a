//! Rollouts across a group of real processes, on a real ZooKeeper server.

#[path = "rollout/bed.rs"]
mod bed;
#[path = "rollout/documents.rs"]
mod documents;
#[path = "rollout/failures.rs"]
mod failures;
#[path = "rollout/joining.rs"]
mod joining;
#[path = "rollout/operators.rs"]
mod operators;
#[path = "rollout/waves.rs"]
mod waves;
