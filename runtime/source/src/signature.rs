//! Who vouches for a component: detached Ed25519 signatures over its digest.
//!
//! What is signed is [`DOMAIN`] and the 32 bytes of the SHA-256, so that a signature of this kind can never be taken for
//! one over something else. A `.sig` file has one signature a line: the id of the key, a space, and the signature in
//! base64. In a registry the same text is the annotation `dev.bellwether.signature`.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use secrecy::{ExposeSecret, SecretString};

use crate::digest::{BadDigest, Digest};

pub use crate::registry::SIGNATURE_ANNOTATION;

/// What stands before the digest in the message that is signed.
pub const DOMAIN: &[u8] = b"bellwether component signature v1\0";

/// The largest `.sig` file.
pub const MAX_FILE: u64 = 16 << 10;

/// Signatures that are looked at.
pub const MAX_SIGNATURES: usize = 32;

/// What a file with a private key begins with.
const PRIVATE: &str = "bellwether-private-key";

/// Why a key or a signature cannot be used. No message shows any part of a private key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadSignature {
    /// A public key is not one.
    #[error("it is not of the form \"<name>:ed25519:<base64>\", as `bellwether keygen` writes it: {0}")]
    PublicKey(&'static str),
    /// A private key is not one.
    #[error("it is not a private key of `bellwether keygen`")]
    PrivateKey,
    /// A signature is not one.
    #[error("line {0} is not of the form \"<key id> <base64>\", as `bellwether sign` writes it")]
    Line(usize),
    /// There are more than is reasonable.
    #[error("it holds more than {MAX_SIGNATURES} signatures")]
    TooMany,
    /// There is no source of randomness.
    #[error("the system gives no random numbers")]
    Random,
}

/// What a key is known by: the first eight bytes of the SHA-256 of the public key, in hex.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(String);

impl KeyId {
    fn of(key: &[u8; 32]) -> Self {
        Self(Digest::of(key).hex().chars().take(16).collect())
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for KeyId {
    type Err = BadDigest;

    fn from_str(text: &str) -> Result<Self, BadDigest> {
        let sound = text.len() == 16 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if sound { Ok(Self(text.to_owned())) } else { Err(BadDigest) }
    }
}

/// A signature, not yet checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// Whose it claims to be.
    pub key: KeyId,
    bytes: [u8; 64],
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.key, STANDARD.encode(self.bytes))
    }
}

/// Reads the lines of a `.sig` file.
///
/// # Errors
/// When a line is not a signature, or there are too many.
pub fn parse(text: &str) -> Result<Vec<Signature>, BadSignature> {
    let mut signatures = Vec::new();
    for (n, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let bad = || BadSignature::Line(n + 1);
        let (key, bytes) = line.trim().split_once(' ').ok_or_else(bad)?;
        let key = key.parse().map_err(|_| bad())?;
        let bytes = STANDARD.decode(bytes.trim()).ok().and_then(|bytes| bytes.try_into().ok()).ok_or_else(bad)?;
        if signatures.len() == MAX_SIGNATURES {
            return Err(BadSignature::TooMany);
        }
        signatures.push(Signature { key, bytes });
    }
    Ok(signatures)
}

/// Writes what [`parse`] reads.
#[must_use]
pub fn write(signatures: &[Signature]) -> String {
    signatures.iter().map(|signature| format!("{signature}\n")).collect()
}

fn message(digest: &Digest) -> Vec<u8> {
    [DOMAIN, digest.bytes()].concat()
}

/// A key that signs; not shown by `Debug`.
pub struct PrivateKey {
    public: PublicKey,
    pair: Ed25519KeyPair,
    /// In base64, as the file has it.
    seed: SecretString,
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrivateKey").field("public", &self.public).finish_non_exhaustive()
    }
}

impl PrivateKey {
    fn new(name: &str, seed: &[u8; 32]) -> Result<Self, BadSignature> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| BadSignature::PrivateKey)?;
        let key = pair.public_key().as_ref().try_into().map_err(|_| BadSignature::PrivateKey)?;
        Ok(Self { public: PublicKey { name: name.to_owned(), key }, pair, seed: STANDARD.encode(seed).into() })
    }

    /// Makes a key.
    ///
    /// # Errors
    /// When the name will not do (as that of a public key), or the system has no random numbers.
    pub fn generate(name: &str) -> Result<Self, BadSignature> {
        check_name(name)?;
        let mut seed = [0; 32];
        SystemRandom::new().fill(&mut seed).map_err(|_| BadSignature::Random)?;
        Self::new(name, &seed)
    }

    /// Reads what [`PrivateKey::to_file`] wrote.
    ///
    /// # Errors
    /// When it is anything else.
    pub fn from_file(text: &str) -> Result<Self, BadSignature> {
        let mut words = text.split_whitespace();
        let (head, name, seed, rest) = (words.next(), words.next(), words.next(), words.next());
        let name = name.filter(|name| head == Some(PRIVATE) && rest.is_none() && check_name(name).is_ok());
        let seed = seed.and_then(|seed| STANDARD.decode(seed).ok()).and_then(|seed| seed.try_into().ok());
        match (name, seed) {
            (Some(name), Some(seed)) => Self::new(name, &seed),
            _ => Err(BadSignature::PrivateKey),
        }
    }

    /// The file that keeps it: for its owner's eyes alone.
    #[must_use]
    pub fn to_file(&self) -> String {
        format!("{PRIVATE} {} {}\n", self.public.name, self.seed.expose_secret())
    }

    /// Its public half.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        self.public.clone()
    }

    /// Vouches for a component.
    #[must_use]
    pub fn sign(&self, digest: &Digest) -> Signature {
        let mut bytes = [0; 64];
        // Ed25519's signatures have this length.
        bytes.copy_from_slice(self.pair.sign(&message(digest)).as_ref());
        Signature { key: self.public.id(), bytes }
    }
}

/// A key that signatures are checked against, with a name for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    name: String,
    key: [u8; 32],
}

impl PublicKey {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What signatures call it.
    #[must_use]
    pub fn id(&self) -> KeyId {
        KeyId::of(&self.key)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:ed25519:{}", self.name, STANDARD.encode(self.key))
    }
}

fn check_name(name: &str) -> Result<(), BadSignature> {
    let ok = (1..=64).contains(&name.len())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '@'));
    if ok {
        Ok(())
    } else {
        Err(BadSignature::PublicKey("its name is not of 1 to 64 letters, digits, `.`, `_`, `-` or `@`"))
    }
}

impl FromStr for PublicKey {
    type Err = BadSignature;

    fn from_str(text: &str) -> Result<Self, BadSignature> {
        let bad = BadSignature::PublicKey;
        let mut parts = text.splitn(3, ':');
        let name = parts.next().unwrap_or_default();
        check_name(name)?;
        if parts.next() != Some("ed25519") {
            return Err(bad("it does not say ed25519"));
        }
        let bytes = parts.next().and_then(|key| STANDARD.decode(key).ok()).and_then(|bytes| bytes.try_into().ok());
        let key = bytes.ok_or_else(|| bad("its key is not 32 bytes in base64"))?;
        Ok(Self { name: name.to_owned(), key })
    }
}

/// Whose signatures count, and whether one is needed.
#[derive(Debug, Clone, Default)]
pub struct Trust {
    /// Whether a component without a good signature is refused.
    pub required: bool,
    keys: BTreeMap<KeyId, PublicKey>,
}

impl Trust {
    /// Trusts these keys.
    #[must_use]
    pub fn new(required: bool, keys: impl IntoIterator<Item = PublicKey>) -> Self {
        Self { required, keys: keys.into_iter().map(|key| (key.id(), key)).collect() }
    }

    /// The name of a trusted key that vouches for a component; none if nobody does and nobody need.
    ///
    /// # Errors
    /// When somebody must, and nobody does; or when a signature by a trusted key is wrong, which is never an accident.
    pub fn check(&self, digest: &Digest, signatures: &[Signature]) -> Result<Option<&str>, String> {
        let mut unknown = Vec::new();
        let mut wrong = None;
        for signature in signatures.iter().take(MAX_SIGNATURES) {
            let Some(key) = self.keys.get(&signature.key) else {
                unknown.push(signature.key.to_string());
                continue;
            };
            if UnparsedPublicKey::new(&ED25519, &key.key).verify(&message(digest), &signature.bytes).is_ok() {
                return Ok(Some(key.name()));
            }
            wrong = Some(key.name());
        }
        if let Some(name) = wrong {
            return Err(format!(
                "the signature by {name:?} is not one over {digest}: it is of another component, or was tampered with"
            ));
        }
        if !self.required {
            return Ok(None);
        }
        let keys: Vec<String> = self.keys.values().map(|key| format!("{} ({})", key.name(), key.id())).collect();
        let keys = keys.join(", ");
        Err(if unknown.is_empty() {
            format!(
                "{digest} is not signed, and the manifest wants it signed by one of: {keys}; sign it with `bellwether sign`"
            )
        } else {
            format!(
                "{digest} is signed only by keys that the manifest does not know ({}); it knows: {keys}",
                unknown.join(", ")
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> PrivateKey {
        PrivateKey::generate(name).unwrap()
    }

    #[test]
    fn keys_and_signatures_are_what_their_texts_say() {
        let private = key("release@ci");
        let again = PrivateKey::from_file(&private.to_file()).unwrap();
        assert_eq!(again.public(), private.public());
        assert_eq!(private.public().to_string().parse(), Ok(private.public()));
        let signatures = vec![private.sign(&Digest::of(b"a")), key("b").sign(&Digest::of(b"a"))];
        assert_eq!(parse(&write(&signatures)).unwrap(), signatures);
        assert!(!format!("{private:?}").contains(private.seed.expose_secret()));
    }

    #[test]
    fn what_is_no_key_is_refused() {
        for text in ["", "a", "a:rsa:AAAA", "a:ed25519:AAAA", "a b:ed25519:AAAA", ":ed25519:"] {
            assert!(text.parse::<PublicKey>().is_err(), "{text}");
        }
        for text in ["", "x", "bellwether-private-key a", "bellwether-private-key a AAAA"] {
            assert_eq!(PrivateKey::from_file(text).err(), Some(BadSignature::PrivateKey), "{text}");
        }
        for text in ["x", "0123456789abcdef AAAA", "0123456789abcdeF AAAA"] {
            assert_eq!(parse(text), Err(BadSignature::Line(1)), "{text}");
        }
        let many = write(&vec![key("a").sign(&Digest::of(b"a")); MAX_SIGNATURES + 1]);
        assert_eq!(parse(&many), Err(BadSignature::TooMany));
    }

    #[test]
    fn the_table_of_signatures() {
        let (known, other, stranger) = (key("known"), key("other"), key("stranger"));
        let digest = Digest::of(b"component");
        let good = known.sign(&digest);
        let strange = stranger.sign(&digest);
        let of_another = known.sign(&Digest::of(b"another"));
        // Signs the bare digest: a message of another kind.
        let bare =
            Signature { key: good.key.clone(), bytes: known.pair.sign(digest.bytes()).as_ref().try_into().unwrap() };
        let stolen = Signature { key: good.key.clone(), bytes: strange.bytes };
        let trust = |required| Trust::new(required, [known.public(), other.public()]);
        let check = |required, signatures: &[&Signature]| {
            let signatures: Vec<_> = signatures.iter().map(|signature| (*signature).clone()).collect();
            trust(required).check(&digest, &signatures).map(|name| name.map(str::to_owned))
        };
        let by_known = Ok(Some("known".to_owned()));
        assert_eq!(check(true, &[&good]), by_known);
        assert_eq!(check(true, &[&strange, &good]), by_known);
        assert_eq!(check(true, &[&of_another, &good]), by_known);
        assert_eq!(check(false, &[&good]), by_known);
        assert_eq!(check(false, &[]), Ok(None));
        assert_eq!(check(false, &[&strange]), Ok(None));
        assert!(check(true, &[]).unwrap_err().contains("is not signed"));
        assert!(check(true, &[&strange]).unwrap_err().contains("does not know"));
        for wrong in [&of_another, &bare, &stolen] {
            for required in [true, false] {
                assert!(check(required, &[wrong]).unwrap_err().contains("\"known\" is not one over"));
            }
        }
    }
}
