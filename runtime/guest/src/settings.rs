//! `wasi:config/store`: the manifest's settings, and finding those that are misspelt.
//!
//! Neither a setting that is asked for and not there, nor one that is there and not asked for, is a mistake: guests have
//! defaults. The two together, with names that are nearly the same, are one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::host::LogLevel;

/// Names that are remembered; a guest may ask for any number.
const MOST: usize = 1_000;

/// The settings of one instance, and what it has asked for.
pub(crate) struct Settings {
    values: Arc<BTreeMap<String, String>>,
    read: BTreeSet<String>,
    absent: BTreeSet<String>,
    /// What was asked for in vain since the last look.
    fresh: Vec<String>,
    all: bool,
}

impl Settings {
    pub(crate) fn new(values: &Arc<BTreeMap<String, String>>) -> Self {
        Self {
            values: Arc::clone(values),
            read: BTreeSet::new(),
            absent: BTreeSet::new(),
            fresh: Vec::new(),
            all: false,
        }
    }

    pub(crate) fn get(&mut self, key: String) -> Option<String> {
        let value = self.values.get(&key).cloned();
        if value.is_some() {
            self.read.insert(key);
        } else if self.absent.len() < MOST && self.absent.insert(key.clone()) {
            self.fresh.push(key);
        }
        value
    }

    pub(crate) fn all(&mut self) -> Vec<(String, String)> {
        self.all = true;
        self.values.iter().map(|(key, value)| (key.clone(), value.clone())).collect()
    }

    /// What the call that has just ended brought to light; each finding is told once an instance.
    pub(crate) fn findings(&mut self) -> Vec<(LogLevel, String)> {
        std::mem::take(&mut self.fresh).into_iter().map(|key| self.finding(&key)).collect()
    }

    fn finding(&self, key: &str) -> (LogLevel, String) {
        let unread = self.values.keys().filter(|name| !self.all && !self.read.contains(*name));
        let nearest = unread.min_by_key(|name| strsim::damerau_levenshtein(name, key));
        match nearest.filter(|name| strsim::damerau_levenshtein(name, key) <= 1 + key.len().max(name.len()) / 5) {
            Some(meant) => {
                let why = format!(
                    "the guest asks for the setting `{key}`, which [group.config] does not have; it has `{meant}`, which the guest \
                     does not ask for: correct the name"
                );
                (LogLevel::Warn, why)
            }
            None => {
                (LogLevel::Debug, format!("the guest asks for the setting `{key}`, which [group.config] does not have"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(keys: &[&str]) -> Settings {
        Settings::new(&Arc::new(keys.iter().map(|key| ((*key).to_owned(), "1".to_owned())).collect()))
    }

    fn warned(settings: &mut Settings) -> Vec<String> {
        settings
            .findings()
            .into_iter()
            .filter(|(level, _)| *level == LogLevel::Warn)
            .map(|(_, message)| message)
            .collect()
    }

    #[test]
    fn a_misspelt_setting_is_told_once_with_the_name_that_is_meant() {
        let mut settings = settings(&["untill", "save_every"]);
        assert_eq!(settings.get("until".into()), None);
        assert_eq!(settings.get("save_every".into()), Some("1".into()));
        let told = warned(&mut settings);
        assert!(told.len() == 1 && told[0].contains("`until`") && told[0].contains("`untill`"), "{told:?}");
        assert_eq!(settings.get("until".into()), None);
        assert_eq!(warned(&mut settings), [""; 0]);
    }

    #[test]
    fn a_setting_with_a_default_is_no_mistake() {
        let mut settings = settings(&["timeout"]);
        for key in ["timeout_ms", "timeouts", "until", "timeout"] {
            settings.get(key.into());
        }
        // `timeouts` was asked for before `timeout`, which is right all the same.
        assert_eq!(warned(&mut settings), [""; 0]);
        settings.get("timeou".into());
        assert_eq!(warned(&mut settings), [""; 0], "what was read is not misspelt");
        settings.all();
        settings.get("time-out".into());
        assert_eq!(settings.findings().len(), 1, "told for those who look for it");
    }
}
