//! How a component is named.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use url::{Host, Url};

use crate::digest::Digest;

/// The longest reference.
const MAX_LENGTH: usize = 4096;

/// What names a component. [`Display`](fmt::Display) is for people and hides the query of an address, which may hold a
/// secret; [`Reference::text`] is the whole of it.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Reference {
    /// A file of the node's machine.
    File(PathBuf),
    /// An address, and the digest of what must be there.
    Web(Web),
    /// An image of a registry.
    Image(Image),
    /// Whatever has this digest, in the node's store or at another node.
    Digest(Digest),
}

/// An address with the digest of what must be there.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Web {
    url: Url,
    digest: Digest,
}

/// An image of a registry.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Image {
    registry: String,
    repository: String,
    tag: Option<String>,
    /// Of the image's manifest, which is not that of the component.
    digest: Option<Digest>,
}

/// A text that does not name a component.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}; {help}")]
pub struct BadReference {
    /// What is wrong.
    pub why: String,
    /// What to write.
    pub help: String,
}

impl BadReference {
    fn new(why: impl Into<String>, help: impl Into<String>) -> Self {
        Self { why: why.into(), help: help.into() }
    }
}

const FORMS: &str = "write a path, \"https://host/x.wasm#sha256=<hex>\", \"oci://registry/repository:tag\", \
                     \"oci://registry/repository@sha256:<hex>\" or \"sha256:<hex>\"";

impl Reference {
    /// Reads a reference. A relative path begins at `base`.
    ///
    /// # Errors
    /// When the text is of none of the forms. No error repeats what may be a secret.
    pub fn parse(text: &str, base: &Path) -> Result<Self, BadReference> {
        if text.is_empty() || text.contains('\0') {
            let why = if text.is_empty() { "it is empty" } else { "it has a NUL character" };
            return Err(BadReference::new(why, FORMS));
        }
        if text.len() > MAX_LENGTH {
            return Err(BadReference::new(format!("it is longer than {MAX_LENGTH} bytes"), FORMS));
        }
        if text.starts_with("sha256:") {
            let help = "write \"sha256:\" and the 64 hexadecimal digits that `bellwether check` shows";
            return text
                .parse()
                .map(Self::Digest)
                .map_err(|error: crate::digest::BadDigest| BadReference::new(error.to_string(), help));
        }
        if let Some(image) = text.strip_prefix("oci://") {
            return Image::parse(image).map(Self::Image);
        }
        if let Some(path) = text.strip_prefix("file:") {
            return file(text, path).map(|path| Self::File(base.join(path)));
        }
        match text.split_once("://") {
            Some(("https" | "http", _)) => Web::parse(text).map(Self::Web),
            // A path may hold anything; one that looks like an address is more likely a mistake.
            Some((scheme, _)) if scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b)) => {
                Err(BadReference::new(format!("components do not come by {scheme:?}"), FORMS))
            }
            _ => Ok(Self::File(base.join(text))),
        }
    }

    /// The whole text, from which [`Reference::parse`] makes the same reference again.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            // A name that looks like a reference of another kind is kept from being taken for one.
            Self::File(path) => {
                let text = path.display().to_string();
                if path.is_absolute() { text } else { format!("file:{text}") }
            }
            Self::Web(web) => format!("{}#sha256={}", web.url, web.digest.hex()),
            other => other.to_string(),
        }
    }

    /// The component's digest, if the reference says it.
    #[must_use]
    pub fn digest(&self) -> Option<Digest> {
        match self {
            Self::Web(web) => Some(web.digest),
            Self::Digest(digest) => Some(*digest),
            Self::File(_) | Self::Image(_) => None,
        }
    }

    /// The file, if it is one.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            _ => None,
        }
    }
}

fn file(whole: &str, path: &str) -> Result<PathBuf, BadReference> {
    if !path.starts_with("//") {
        return if path.is_empty() {
            Err(BadReference::new("it names no file", FORMS))
        } else {
            Ok(PathBuf::from(path))
        };
    }
    let no = || {
        BadReference::new(
            "it is not the address of a file of this machine",
            "write \"file:///absolute/path.wasm\" or \"file:relative/path.wasm\"",
        )
    };
    Url::parse(whole).ok().and_then(|url| url.to_file_path().ok()).ok_or_else(no)
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Web(web) => web.fmt(f),
            Self::Image(image) => image.fmt(f),
            Self::Digest(digest) => digest.fmt(f),
        }
    }
}

impl TryFrom<String> for Reference {
    type Error = BadReference;

    fn try_from(text: String) -> Result<Self, BadReference> {
        text.parse()
    }
}

impl From<Reference> for String {
    fn from(reference: Reference) -> Self {
        reference.text()
    }
}

impl fmt::Debug for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reference({self})")
    }
}

impl FromStr for Reference {
    type Err = BadReference;

    fn from_str(text: &str) -> Result<Self, BadReference> {
        Self::parse(text, Path::new(""))
    }
}

impl Web {
    fn parse(text: &str) -> Result<Self, BadReference> {
        let mut url = Url::parse(text).map_err(|error| {
            BadReference::new(format!("it is not an address: {error}"), "write \"https://host/x.wasm#sha256=<hex>\"")
        })?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(BadReference::new(
                "it holds a user or a password",
                "leave them out: references are shown in logs; a registry (oci://) takes credentials from docker's configuration",
            ));
        }
        if url.scheme() == "http" && !is_loopback(&url) {
            return Err(BadReference::new(
                "it is not encrypted, so that anybody on the way learns what this cluster runs, and can keep it from arriving",
                "write \"https://…\"; plain \"http://\" is for this machine alone (127.0.0.1, [::1], localhost)",
            ));
        }
        let digest = url.fragment().and_then(|fragment| fragment.strip_prefix("sha256=")).map(Digest::from_hex);
        let digest = match digest {
            Some(Ok(digest)) => digest,
            Some(Err(error)) => {
                return Err(BadReference::new(
                    format!("its digest is not one: {error}"),
                    "end it with \"#sha256=<hex>\"",
                ));
            }
            None => {
                return Err(BadReference::new(
                    "it does not say which component must be there",
                    "add its digest, \"#sha256=<hex>\": what an address serves may change, what a release is may not; `sha256sum` shows it",
                ));
            }
        };
        url.set_fragment(None);
        Ok(Self { url, digest })
    }

    /// Where.
    #[must_use]
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// Where the signatures of what is there would be: beside it, with `.sig` added to its name.
    #[must_use]
    pub fn signatures(&self) -> Url {
        let mut url = self.url.clone();
        url.set_path(&format!("{}.sig", self.url.path()));
        url
    }
}

/// Whether an address is of this machine.
pub(crate) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => IpAddr::V4(address).is_loopback(),
        Some(Host::Ipv6(address)) => IpAddr::V6(address).is_loopback(),
        None => false,
    }
}

impl fmt::Display for Web {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        shown(&self.url).fmt(f)?;
        write!(f, "#sha256={}", self.digest.hex())
    }
}

/// An address for people: without its query, which may be a secret.
pub(crate) fn shown(url: &Url) -> String {
    let mut shown = url.clone();
    shown.set_fragment(None);
    // What was redirected to may hold these.
    let _ = shown.set_username("");
    let _ = shown.set_password(None);
    if url.query().is_some() {
        shown.set_query(Some("…"));
        return shown.to_string().replace("%E2%80%A6", "…");
    }
    shown.to_string()
}

impl Image {
    fn parse(text: &str) -> Result<Self, BadReference> {
        const HELP: &str = "write \"oci://registry/repository:tag\" or \"oci://registry/repository@sha256:<hex>\"";
        let bad = |why: &str| Err(BadReference::new(why, HELP));
        let Some((registry, rest)) = text.split_once('/') else { return bad("it names no repository") };
        if registry.contains('@') {
            return Err(BadReference::new(
                "it holds a user or a password",
                "leave them out: credentials come from docker's configuration (`docker login`)",
            ));
        }
        let (rest, digest) = match rest.split_once('@') {
            None => (rest, None),
            Some((rest, digest)) => match digest.parse::<Digest>() {
                Ok(digest) => (rest, Some(digest)),
                Err(error) => return bad(&format!("what follows its \"@\" is not a digest: {error}")),
            },
        };
        let (repository, tag) = match rest.rsplit_once(':') {
            None => (rest, None),
            Some((repository, tag)) => (repository, Some(tag)),
        };
        let host = Url::parse(&format!("https://{registry}/"));
        let sound =
            |url: &Url| url.host().is_some() && url.path() == "/" && url.query().is_none() && url.fragment().is_none();
        if !host.is_ok_and(|url| sound(&url)) {
            return bad("its registry is not a host, or a host and a port");
        }
        if repository.len() > 255 || !repository.split('/').all(is_part) {
            return bad(
                "its repository is not of lower-case letters, digits, and single `.`, `_`, `-` and `/` between them",
            );
        }
        if let Some(tag) = tag
            && !is_tag(tag)
        {
            return bad("its tag is not of 1 to 128 letters, digits, `.`, `_` and `-`");
        }
        if tag.is_none() && digest.is_none() {
            return bad("it says neither which tag nor which digest");
        }
        Ok(Self {
            registry: registry.to_owned(),
            repository: repository.to_owned(),
            tag: tag.map(ToOwned::to_owned),
            digest,
        })
    }

    /// The registry, as it is written.
    #[must_use]
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The repository, as the registry calls it.
    #[must_use]
    pub fn repository(&self) -> String {
        // Docker's own registry hides the name of the images that are nobody's in particular.
        let short = self.is_docker_hub() && !self.repository.contains('/');
        if short { format!("library/{}", self.repository) } else { self.repository.clone() }
    }

    pub(crate) fn is_docker_hub(&self) -> bool {
        matches!(self.registry.as_str(), "docker.io" | "index.docker.io")
    }

    /// What to ask the registry for: the digest if there is one, otherwise the tag.
    #[must_use]
    pub fn version(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, tag) => tag.clone().unwrap_or_default(),
        }
    }

    /// The digest of the image's manifest, if the reference says it.
    #[must_use]
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// The same image, by the digest that its tag stands for now.
    #[must_use]
    pub fn at(&self, digest: Digest) -> Self {
        Self { digest: Some(digest), ..self.clone() }
    }
}

impl fmt::Display for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "oci://{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn is_part(part: &str) -> bool {
    let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    ends(part.chars().next())
        && ends(part.chars().next_back())
        && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_' | '-'))
        && !part.contains("..")
}

fn is_tag(tag: &str) -> bool {
    (1..=128).contains(&tag.len())
        && tag.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
        && tag.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

    fn parse(text: &str) -> Result<Reference, BadReference> {
        Reference::parse(text, Path::new("/base"))
    }

    #[test]
    fn paths_begin_at_the_base() {
        for (text, path) in [
            ("a.wasm", "/base/a.wasm"),
            ("../b/a.wasm", "/base/../b/a.wasm"),
            ("/x/a.wasm", "/x/a.wasm"),
            ("file:a.wasm", "/base/a.wasm"),
            ("file:/x/a.wasm", "/x/a.wasm"),
            ("file:///x/a%20b.wasm", "/x/a b.wasm"),
            ("odd:name.wasm", "/base/odd:name.wasm"),
        ] {
            assert_eq!(parse(text), Ok(Reference::File(path.into())), "{text}");
        }
    }

    #[test]
    fn a_reference_is_what_its_text_says() {
        for text in [
            format!("https://host.example:8443/a/x.wasm?sig=1&b#sha256={HEX}"),
            format!("http://127.0.0.1:1/x.wasm#sha256={HEX}"),
            format!("http://[::1]:1/x.wasm#sha256={HEX}"),
            format!("http://localhost/x.wasm#sha256={HEX}"),
            "oci://registry.example/team/guest:v1.2".to_owned(),
            format!("oci://registry.example:5000/guest@sha256:{HEX}"),
            format!("oci://localhost:5000/guest:v1@sha256:{HEX}"),
            "oci://[::1]:5000/guest:v1".to_owned(),
            format!("sha256:{HEX}"),
            "/x/a.wasm".to_owned(),
        ] {
            let reference = parse(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(reference.text(), text);
            assert_eq!(parse(&reference.text()), Ok(reference));
        }
        let odd = Reference::File("sha256:x".into());
        assert_eq!(Reference::parse(&odd.text(), Path::new("")), Ok(odd));
    }

    #[test]
    fn what_names_no_component_is_refused_with_what_to_write() {
        for (text, why) in [
            (String::new(), "empty"),
            ("a\0b".to_owned(), "NUL"),
            ("x".repeat(5000), "longer than"),
            ("sha256:12".to_owned(), "64 hexadecimal"),
            (format!("sha256:{}", HEX.to_uppercase()), "lower case"),
            ("ftp://host/x".to_owned(), "\"ftp\""),
            ("docker://host/x".to_owned(), "\"docker\""),
            ("file:".to_owned(), "no file"),
            ("file://other/x".to_owned(), "this machine"),
            ("https://host/x.wasm".to_owned(), "which component"),
            ("https://host/x.wasm#sha256=12".to_owned(), "not one"),
            (format!("https:///#sha256={HEX}"), "not an address"),
            (format!("https://me:hunter2@host/x#sha256={HEX}"), "a password"),
            (format!("http://host.example/x#sha256={HEX}"), "not encrypted"),
            (format!("http://127.0.0.1.example/x#sha256={HEX}"), "not encrypted"),
            ("oci://registry".to_owned(), "no repository"),
            ("oci://registry/repo".to_owned(), "neither"),
            ("oci://registry/Repo:v1".to_owned(), "lower-case"),
            ("oci://registry/a/../b:v1".to_owned(), "lower-case"),
            ("oci://registry/a//b:v1".to_owned(), "lower-case"),
            ("oci://me:hunter2@registry/repo:v1".to_owned(), "a password"),
            ("oci://registry/repo:".to_owned(), "tag"),
            ("oci://registry/repo@sha256:1".to_owned(), "digest"),
            ("oci:///repo:v1".to_owned(), "registry"),
            ("oci://a b/repo:v1".to_owned(), "registry"),
        ] {
            let error = parse(&text).expect_err(&text);
            assert!(error.why.contains(why), "{text}: {error}");
            assert!(error.help.len() > 10 && !error.to_string().contains("hunter2"), "{text}: {error}");
        }
    }

    #[test]
    fn queries_are_not_shown() {
        let text = format!("https://host/x.wasm?token=hunter2#sha256={HEX}");
        let reference = parse(&text).unwrap();
        assert_eq!(reference.to_string(), format!("https://host/x.wasm?…#sha256={HEX}"));
        assert!(!format!("{reference:?}").contains("hunter2"));
        assert_eq!(reference.digest().unwrap().hex(), HEX);
        let Reference::Web(web) = &reference else { panic!("{reference}") };
        assert_eq!(web.signatures().as_str(), "https://host/x.wasm.sig?token=hunter2");
    }

    #[test]
    fn docker_hub_is_called_by_its_full_names() {
        let Ok(Reference::Image(image)) = parse("oci://docker.io/guest:v1") else { panic!("no image") };
        assert_eq!((image.repository().as_str(), image.version().as_str()), ("library/guest", "v1"));
    }
}
