//! The job's settings, from the manifest's `[group.config]`.

/// How the workers get the text of a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carry {
    /// They read it from their own copy of the corpus.
    Range,
    /// The leader reads it and sends it along.
    Text,
}

/// The settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// `folder`: where the guest sees the corpus.
    pub folder: String,
    /// `chunk_bytes`: the size of a chunk.
    pub chunk_bytes: u64,
    /// `batch`: how many chunks one tick hands out at most.
    pub batch: u64,
    /// `passes`: begin no pass beyond this number; 0 for no end.
    pub passes: u64,
    /// `hold`: begin a pass only if it would count in another mode than the last one, so that nothing happens between a
    /// finished pass and the swap to another version.
    pub hold: bool,
    /// `tasks`: `range` or `text`.
    pub carry: Carry,
    /// `timeout_ms`: how long a batch may take. Keep it below the manifest's `limits.callback`.
    pub timeout_ms: u32,
    /// `keep`: the results of how many passes are kept.
    pub keep: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            folder: "/corpus".to_owned(),
            chunk_bytes: 64 << 10,
            batch: 16,
            passes: 0,
            hold: false,
            carry: Carry::Range,
            timeout_ms: 3_000,
            keep: 10,
        }
    }
}

/// A setting that is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadConfig {
    /// An unknown name.
    #[error(
        "[group.config] has the unknown key `{0}`; known are folder, chunk_bytes, batch, passes, hold, tasks, timeout_ms, keep"
    )]
    UnknownKey(String),
    /// A value that is not allowed.
    #[error("[group.config] {key} = {value:?}: {wanted} is wanted")]
    Value {
        /// The setting.
        key: &'static str,
        /// Its value.
        value: String,
        /// What would be allowed.
        wanted: String,
    },
}

impl Config {
    /// Reads the settings; what is not set has its default.
    ///
    /// # Errors
    /// [`BadConfig`] names the first setting that is unknown or not allowed.
    pub fn from_pairs(pairs: impl IntoIterator<Item = (String, String)>) -> Result<Self, BadConfig> {
        let mut config = Self::default();
        for (key, value) in pairs {
            match key.as_str() {
                "folder" if value.is_empty() => return Err(bad("folder", value, "a path")),
                "folder" => config.folder = value,
                "chunk_bytes" => config.chunk_bytes = number("chunk_bytes", value, 1, 8 << 20)?,
                "batch" => config.batch = number("batch", value, 1, 4_096)?,
                "passes" => config.passes = number("passes", value, 0, u64::MAX)?,
                "hold" => {
                    config.hold = match value.as_str() {
                        "true" => true,
                        "false" => false,
                        _ => return Err(bad("hold", value, "true or false")),
                    }
                }
                "tasks" => {
                    config.carry = match value.as_str() {
                        "range" => Carry::Range,
                        "text" => Carry::Text,
                        _ => return Err(bad("tasks", value, "\"range\" or \"text\"")),
                    }
                }
                "timeout_ms" => {
                    let timeout = number("timeout_ms", value, 1, 3_600_000)?;
                    config.timeout_ms = u32::try_from(timeout).unwrap_or(u32::MAX);
                }
                "keep" => config.keep = number("keep", value, 1, 1_000)?,
                _ => return Err(BadConfig::UnknownKey(key)),
            }
        }
        Ok(config)
    }
}

fn bad(key: &'static str, value: String, wanted: impl Into<String>) -> BadConfig {
    BadConfig::Value { key, value, wanted: wanted.into() }
}

fn number(key: &'static str, value: String, least: u64, most: u64) -> Result<u64, BadConfig> {
    match value.parse() {
        Ok(number) if (least..=most).contains(&number) => Ok(number),
        _ if most == u64::MAX => Err(bad(key, value, format!("a whole number from {least} on"))),
        _ => Err(bad(key, value, format!("a whole number from {least} to {most}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Config, BadConfig> {
        Config::from_pairs(pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())))
    }

    #[test]
    fn settings_have_defaults_and_are_read() {
        assert_eq!(read(&[]).unwrap(), Config::default());
        let config = read(&[("folder", "/text"), ("chunk_bytes", "100"), ("hold", "true"), ("tasks", "text")]).unwrap();
        let wanted =
            Config { folder: "/text".into(), chunk_bytes: 100, hold: true, carry: Carry::Text, ..Config::default() };
        assert_eq!(config, wanted);
    }

    #[test]
    fn errors_name_the_setting_and_what_is_wanted() {
        let message = |pairs| read(pairs).unwrap_err().to_string();
        assert!(message(&[("chunkbytes", "1")]).contains("`chunkbytes`; known are folder, chunk_bytes"));
        assert_eq!(message(&[("batch", "0")]), "[group.config] batch = \"0\": a whole number from 1 to 4096 is wanted");
        assert_eq!(message(&[("passes", "-1")]), "[group.config] passes = \"-1\": a whole number from 0 on is wanted");
        assert_eq!(message(&[("hold", "yes")]), "[group.config] hold = \"yes\": true or false is wanted");
        assert!(message(&[("tasks", "")]).contains("\"range\" or \"text\""));
        assert!(message(&[("folder", "")]).contains("a path"));
    }
}
