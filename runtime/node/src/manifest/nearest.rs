//! What somebody probably meant.

/// The candidate that is so near to `word` that it is probably meant.
pub(super) fn nearest<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    let plain = |text: &str| text.to_lowercase().replace('-', "_");
    let word = plain(word);
    candidates
        .into_iter()
        .map(|candidate| {
            let other = plain(candidate);
            let allowed = (word.chars().count().max(other.chars().count()) / 3).max(1);
            let distance = strsim::damerau_levenshtein(&word, &other);
            let alike = strsim::jaro_winkler(&word, &other);
            (candidate, distance, alike, distance <= allowed || (alike >= 0.88 && word.len() >= 3))
        })
        .filter(|(.., near)| *near)
        .min_by(|(_, d1, a1, _), (_, d2, a2, _)| d1.cmp(d2).then(a2.total_cmp(a1)))
        .map(|(candidate, ..)| candidate)
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn finds_what_was_meant_and_nothing_else() {
        let keys = ["id", "advertise", "listen", "data_dir", "admin", "tls", "session_timeout", "watch", "watch_file"];
        for (typed, meant) in [
            ("sesion_timeout", Some("session_timeout")),
            ("session-timeout", Some("session_timeout")),
            ("ID", Some("id")),
            ("datadir", Some("data_dir")),
            ("advertised", Some("advertise")),
            ("watchfile", Some("watch_file")),
            ("port", None),
            ("zookeeper", None),
            ("", None),
        ] {
            assert_eq!(nearest(typed, keys), meant, "{typed}");
        }
    }
}
