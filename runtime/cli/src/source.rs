//! What a verb says about a release: its components and its configuration.

use std::collections::BTreeMap;
use std::path::Path;

use crate::exit::{Exit, Failure};

/// A component as the admin API needs it: a file by its whole path, since the node runs elsewhere in the file system; any other
/// reference as it is.
pub fn reference(text: &str) -> Result<String, Failure> {
    let path = match text.split_once(':') {
        Some(("file", path)) => path,
        // One letter is no scheme: neither is a path that has a colon somewhere behind a slash.
        Some((scheme, _)) if scheme.len() > 1 && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric()) => {
            return Ok(text.to_owned());
        }
        _ => text,
    };
    let absolute = absolute(Path::new(path))?;
    Ok(format!("file:{absolute}"))
}

/// The path as the node, which runs elsewhere in the file system, needs it.
pub fn absolute(file: &Path) -> Result<String, Failure> {
    let failed = |why: &dyn std::fmt::Display| {
        Failure::new(Exit::Component, format!("cannot use the component {}", file.display())).why(why)
    };
    let meta = std::fs::metadata(file).map_err(|error| failed(&error))?;
    if !meta.is_file() {
        return Err(failed(&"it is not a file"));
    }
    let path = std::path::absolute(file).map_err(|error| failed(&error))?;
    path.to_str().map(str::to_owned).ok_or_else(|| failed(&"its path is not valid UTF-8, which the admin API needs"))
}

/// A setting, `KEY=VALUE`.
pub fn setting(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some(("", _)) => Err("the key is missing: write KEY=VALUE".to_owned()),
        Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
        None => Err("there is no '=': write KEY=VALUE".to_owned()),
    }
}

/// The whole configuration: that of a file, with single settings in the place of its own; none if neither is given.
pub fn config(file: Option<&Path>, settings: &[(String, String)]) -> Result<Option<BTreeMap<String, String>>, Failure> {
    let mut config = match file {
        Some(file) => from_file(file)?,
        None if settings.is_empty() => return Ok(None),
        None => BTreeMap::new(),
    };
    let mut given = BTreeMap::new();
    for (key, value) in settings {
        if given.insert(key, value).is_some() {
            let what = format!("--config gives {key:?} twice: which value is meant?");
            return Err(Failure::new(Exit::Usage, what));
        }
        config.insert(key.clone(), value.clone());
    }
    Ok(Some(config))
}

fn from_file(file: &Path) -> Result<BTreeMap<String, String>, Failure> {
    let failed = || Failure::new(Exit::Usage, format!("cannot take the configuration from {}", file.display()));
    let text = std::fs::read_to_string(file).map_err(|error| failed().why(error))?;
    let table: toml::Table =
        text.parse().map_err(|error: toml::de::Error| failed().why(error.to_string().trim_end()))?;
    let help = "write KEY = \"VALUE\", KEY = 1, KEY = 1.5 or KEY = true, as in [group.config] of the manifest";
    table
        .into_iter()
        .map(|(key, value)| match value {
            toml::Value::String(text) => Ok((key, text)),
            toml::Value::Boolean(_) | toml::Value::Integer(_) | toml::Value::Float(_) => Ok((key, value.to_string())),
            other => Err(failed().why(format!("{key:?} is a TOML {}, and no setting", other.type_str())).help(help)),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_become_absolute_and_other_references_stay() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a:b.wasm");
        std::fs::write(&file, b"").unwrap();
        let text = file.to_str().unwrap();
        assert_eq!(reference(text).unwrap(), format!("file:{text}"));
        assert_eq!(reference(&format!("file:{text}")).unwrap(), format!("file:{text}"));
        for other in ["oci://registry/a:1", "https://host/a.wasm", "sha256:00"] {
            assert_eq!(reference(other).unwrap(), other);
        }
        for bad in ["/not/there.wasm", "file:/not/there.wasm", folder.path().to_str().unwrap()] {
            assert_eq!(reference(bad).unwrap_err().exit, Exit::Component, "{bad}");
        }
    }

    #[test]
    fn settings_need_a_key_and_may_hold_anything() {
        assert_eq!(setting("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert_eq!(setting("a="), Ok(("a".to_owned(), String::new())));
        assert!(setting("a").is_err());
        assert!(setting("=b").is_err());
    }

    #[test]
    fn a_file_of_settings_reads_as_the_manifest_does() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config.toml");
        std::fs::write(&file, "text = \"t\"\nyes = true\nnumber = 7\nhalf = 2.0\n").unwrap();
        let given = [("text".to_owned(), "given".to_owned()), ("more".to_owned(), "1".to_owned())];
        let config = config(Some(&file), &given).unwrap().unwrap();
        let pairs: Vec<_> = config.iter().map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(pairs, ["half=2.0", "more=1", "number=7", "text=given", "yes=true"]);
    }

    #[test]
    fn what_is_no_configuration_is_refused_with_a_reason() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config.toml");
        std::fs::write(&file, "[nested]\na = 1\n").unwrap();
        let nested = config(Some(&file), &[]).unwrap_err();
        assert!(nested.why[0].contains("\"nested\" is a TOML table"), "{nested:?}");
        std::fs::write(&file, "a = \n").unwrap();
        assert_eq!(config(Some(&file), &[]).unwrap_err().exit, Exit::Usage);
        assert_eq!(config(Some(Path::new("/not/there")), &[]).unwrap_err().exit, Exit::Usage);
        let twice = [("a".to_owned(), "1".to_owned()), ("a".to_owned(), "2".to_owned())];
        assert!(config(None, &twice).unwrap_err().what.contains("twice"));
        assert_eq!(config(None, &[]), Ok(None));
    }
}
