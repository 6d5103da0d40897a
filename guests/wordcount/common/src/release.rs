//! What tells one version of the job from another.

use crate::words::Mode;

/// A version of the job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Release {
    /// Its name, as logs and `progress` show it.
    pub version: &'static str,
    /// How the passes that it begins count.
    pub starts: Mode,
    /// How its workers can count.
    pub knows: &'static [Mode],
}

impl Release {
    /// The mode of that name, if this version's workers can count so.
    #[must_use]
    pub fn mode(&self, name: &str) -> Option<Mode> {
        self.knows.iter().copied().find(|mode| mode.name() == name)
    }
}
