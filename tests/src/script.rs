//! Orders for a probe that leads (`guests/testing/probe`, order `script`): given one by one, each with its answer.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::cluster::Cluster;

/// A file of orders that every node of a cluster is granted; the leader carries them out on its ticks.
pub struct Script {
    folder: tempfile::TempDir,
    given: std::cell::Cell<usize>,
}

impl Script {
    /// No orders yet.
    ///
    /// # Errors
    /// When there is no room for a temporary folder.
    pub fn new() -> Result<Self> {
        Ok(Self { folder: tempfile::tempdir()?, given: std::cell::Cell::new(0) })
    }

    /// What the group's table of the manifest needs: ticks that look for orders, and the grant of the file. `config` are further
    /// settings, as TOML pairs, each with a comma behind it.
    #[must_use]
    pub fn group(&self, config: &str) -> String {
        format!(
            "config = {{ {config} \"on-tick\" = \"script /orders/script\" }}\n\
             [group.tick]\nevery = \"20ms\"\n\
             [group.grants]\nstate = \"all\"\nfolders = [{{ host = \"{}\", guest = \"/orders\", mode = \"read\" }}]\n",
            self.folder.path().display()
        )
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("script")
    }

    /// Has the leader of `group` carry out an order, and gives what came of it. The leader must stay the same throughout.
    ///
    /// # Errors
    /// When nothing came of it in time.
    pub fn order(&self, cluster: &Cluster, group: &str, order: &str) -> Result<String> {
        let mut file = OpenOptions::new().create(true).append(true).open(self.file())?;
        writeln!(file, "{order}")?;
        self.given.set(self.given.get() + 1);
        let head = format!("{}: ", self.given.get());
        let what = format!("an answer to {order:?}");
        cluster
            .wait_for(&what, Duration::from_secs(60), |cluster| {
                cluster.nodes().iter().find_map(|node| {
                    let lines = node.logged(0, |line| {
                        line.group() == group && line.guest("script").is_some_and(|text| text.starts_with(&head))
                    });
                    lines
                        .last()
                        .and_then(|line| line.guest("script"))
                        .and_then(|text| text.strip_prefix(&head))
                        .map(str::to_owned)
                })
            })
            .with_context(|| format!("the order was {order:?}"))
    }
}

/// What a worker answered, as text: the probe shows the bytes as numbers.
#[must_use]
pub fn answer(shown: &str) -> String {
    let Some(numbers) = shown.strip_prefix("Ok([").and_then(|rest| rest.strip_suffix("])")) else {
        return shown.to_owned();
    };
    let bytes: Vec<u8> = numbers.split(", ").filter_map(|number| number.parse().ok()).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}
