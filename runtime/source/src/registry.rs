//! Components in registries, as `wkg` and `oras` put them there: an image with one layer of the media type `application/wasm`.
//!
//! The crates that speak to registries read manifests and tokens without a bound and follow what a registry says to
//! unencrypted addresses, credentials in hand; so this is done here, on the client that is bounded.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_auth::parser::ChallengeParser;
use reqwest::header::{HeaderValue, WWW_AUTHENTICATE};
use reqwest::{Response, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use url::Url;
use url::form_urlencoded::Serializer;

use crate::credentials::{self, Credentials};
use crate::digest::Digest;
use crate::http::{Http, body, good};
use crate::reference::{Image, is_loopback, shown};

/// The annotation of an image, or of its layer, that holds what would stand in a `.sig` file.
pub const SIGNATURE_ANNOTATION: &str = "dev.bellwether.signature";

const ACCEPT: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, \
                      application/vnd.docker.distribution.manifest.v2+json";

/// The media types of layers that are components; the first is the one to use.
const LAYERS: [&str; 3] = [
    "application/wasm",
    "application/vnd.wasm.content.layer.v1+wasm",
    "application/vnd.bytecodealliance.wasm.component.layer.v0+wasm",
];

/// The largest manifest, as registries have it.
const MAX_MANIFEST: u64 = 4 << 20;

/// The largest token.
const MAX_TOKEN: u64 = 64 << 10;

/// An image, as it is now.
#[derive(Debug)]
pub(crate) struct Resolved {
    /// The image by its digest.
    pub image: Image,
    /// The component's digest.
    pub component: Digest,
    /// What its annotation says of signatures.
    pub signatures: Option<String>,
    size: u64,
    authorization: Option<HeaderValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    #[serde(default)]
    layers: Vec<Descriptor>,
    #[serde(default)]
    manifests: Vec<Descriptor>,
    #[serde(default)]
    annotations: Option<Annotations>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    size: u64,
    #[serde(default)]
    annotations: Option<Annotations>,
    #[serde(default)]
    platform: Option<Platform>,
}

#[derive(Deserialize)]
struct Annotations {
    #[serde(rename = "dev.bellwether.signature")]
    signature: Option<String>,
}

#[derive(Deserialize)]
struct Platform {
    #[serde(default)]
    architecture: String,
}

/// Asks the registry what an image is now.
pub(crate) async fn resolve(http: &Http, image: &Image) -> Result<Resolved, String> {
    let mut authorization = None;
    let (manifest, digest) = manifest(http, image, &image.version(), image.digest(), &mut authorization).await?;
    let manifest = match choose(&manifest)? {
        None => manifest,
        Some(within) => {
            let (inner, _) = self::manifest(http, image, &within.to_string(), Some(within), &mut authorization).await?;
            if !inner.manifests.is_empty() {
                return Err("it is an index of indexes, which this node does not follow".into());
            }
            inner
        }
    };
    let mut layers = manifest.layers.iter().filter(|layer| LAYERS.contains(&layer.media_type.as_str()));
    let layer = match (layers.next(), layers.next()) {
        (Some(layer), None) => layer,
        (Some(_), Some(_)) => {
            return Err("it has several layers that are components; push each as an image of its own".into());
        }
        (None, _) => {
            let types: Vec<&str> = manifest.layers.iter().take(4).map(|layer| layer.media_type.as_str()).collect();
            return Err(format!(
                "it has no layer of the media type {:?}, only {types:?}; push it with `wkg oci push`, or `oras push … x.wasm:{}`",
                LAYERS[0], LAYERS[0]
            ));
        }
    };
    let component = layer.digest.parse().map_err(|_| "its layer's digest is not a SHA-256".to_owned())?;
    if layer.size > http.limits.bytes {
        return Err(format!(
            "it has {} bytes, more than the {} that a component may have",
            layer.size, http.limits.bytes
        ));
    }
    let on_layer = layer.annotations.as_ref().and_then(|annotations| annotations.signature.clone());
    let signatures = on_layer.or_else(|| manifest.annotations.as_ref().and_then(|all| all.signature.clone()));
    Ok(Resolved { image: image.at(digest), component, signatures, size: layer.size, authorization })
}

/// Takes the component of an image.
pub(crate) async fn pull(http: &Http, resolved: &Resolved) -> Result<Bytes, String> {
    let url = address(&resolved.image, "blobs", &resolved.component.to_string())?;
    let response = http.get(&url, None, resolved.authorization.as_ref()).await?;
    let bytes = body(good(response)?, resolved.size).await?;
    if (bytes.len() as u64) < resolved.size {
        return Err(format!("{} bytes came, of {}", bytes.len(), resolved.size));
    }
    Ok(bytes)
}

/// Of an index, the manifest to go on with: the only one, or that for WebAssembly.
fn choose(manifest: &Manifest) -> Result<Option<Digest>, String> {
    let is_wasm = |found: &&Descriptor| found.platform.as_ref().is_some_and(|platform| platform.architecture == "wasm");
    let found = match manifest.manifests.as_slice() {
        [] => return Ok(None),
        [only] => only,
        several => {
            several.iter().find(is_wasm).ok_or("it is an index of several images, none of them for WebAssembly")?
        }
    };
    found.digest.parse().map(Some).map_err(|_| "it is an index that names no SHA-256".to_owned())
}

fn address(image: &Image, kind: &str, which: &str) -> Result<Url, String> {
    let registry = if image.is_docker_hub() { "registry-1.docker.io" } else { image.registry() };
    let parse = |scheme: &str| {
        Url::parse(&format!("{scheme}://{registry}/v2/{}/{kind}/{which}", image.repository()))
            .map_err(|error| format!("its registry has no address: {error}"))
    };
    let url = parse("https")?;
    // As docker has it: what listens on this machine's own addresses needs no certificate.
    if is_loopback(&url) { parse("http") } else { Ok(url) }
}

async fn manifest(
    http: &Http,
    image: &Image,
    version: &str,
    digest: Option<Digest>,
    authorization: &mut Option<HeaderValue>,
) -> Result<(Manifest, Digest), String> {
    let url = address(image, "manifests", version)?;
    let mut response = http.get(&url, Some(ACCEPT), authorization.as_ref()).await?;
    if response.status() == StatusCode::UNAUTHORIZED && authorization.is_none() {
        *authorization = Some(authorize(http, image, &url, &response).await?);
        response = http.get(&url, Some(ACCEPT), authorization.as_ref()).await?;
    }
    if matches!(response.status(), StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
        return Err(format!(
            "the registry does not let this node read it (status {}); run `docker login {}` as the user who runs the node",
            response.status().as_u16(),
            image.registry()
        ));
    }
    let bytes = body(good(response)?, MAX_MANIFEST).await.map_err(|why| format!("its manifest: {why}"))?;
    let found = Digest::of(&bytes);
    if let Some(wanted) = digest.filter(|wanted| *wanted != found) {
        return Err(format!("the registry gave the manifest {found} for {wanted}"));
    }
    let manifest = serde_json::from_slice(&bytes).map_err(|error| format!("its manifest cannot be read: {error}"))?;
    Ok((manifest, found))
}

/// What to show to a registry that wants to know who asks.
async fn authorize(http: &Http, image: &Image, url: &Url, response: &Response) -> Result<HeaderValue, String> {
    let key = if image.is_docker_hub() { "https://index.docker.io/v1/" } else { image.registry() };
    let credentials = credentials::of(key.to_owned()).await?;
    let (mut basic, mut bearer) = (false, None);
    for value in response.headers().get_all(WWW_AUTHENTICATE) {
        let challenges = value.to_str().map(ChallengeParser::new).into_iter().flatten().flatten();
        for challenge in challenges {
            if challenge.scheme.eq_ignore_ascii_case("basic") {
                basic = true;
            } else if challenge.scheme.eq_ignore_ascii_case("bearer") {
                let of = |name: &str| {
                    let found = challenge.params.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
                    found.map(|(_, value)| value.to_unescaped())
                };
                bearer = of("realm").map(|realm| (realm, of("service")));
            }
        }
    }
    if let Some((realm, service)) = bearer {
        let realm = Url::parse(&realm).map_err(|_| "the registry names no address to get a token at".to_owned())?;
        if realm.scheme() != "https" && !(is_loopback(&realm) && is_loopback(url)) {
            return Err(format!("the registry wants credentials sent to {}, which is not encrypted", shown(&realm)));
        }
        return token(http, image, realm, service, &credentials).await;
    }
    match &credentials {
        Credentials::User(user, password) if basic => basic_header(user, password),
        _ if basic => Err(format!(
            "the registry wants a user and a password, and docker's configuration has none for it; run `docker login {}` \
             as the user who runs the node",
            image.registry()
        )),
        _ => Err("the registry wants credentials of a kind that this node does not know".into()),
    }
}

fn secret(text: String) -> Result<HeaderValue, String> {
    let mut value = HeaderValue::from_str(&text).map_err(|_| "the credentials cannot be sent".to_owned())?;
    value.set_sensitive(true);
    Ok(value)
}

fn basic_header(user: &str, password: &SecretString) -> Result<HeaderValue, String> {
    secret(format!("Basic {}", STANDARD.encode(format!("{user}:{}", password.expose_secret()))))
}

/// What asks for a token in exchange for another.
fn form(scope: &str, service: Option<&str>, identity: &SecretString) -> String {
    let mut form = Serializer::new(String::new());
    form.append_pair("grant_type", "refresh_token").append_pair("client_id", "bellwether");
    form.append_pair("scope", scope).append_pair("refresh_token", identity.expose_secret());
    if let Some(service) = service {
        form.append_pair("service", service);
    }
    form.finish()
}

async fn token(
    http: &Http,
    image: &Image,
    realm: Url,
    service: Option<String>,
    credentials: &Credentials,
) -> Result<HeaderValue, String> {
    #[derive(Deserialize)]
    struct Token {
        token: Option<String>,
        access_token: Option<String>,
    }
    let scope = format!("repository:{}:pull", image.repository());
    let failed = |why: String| format!("no token from {}: {why}", shown(&realm));
    let response = match credentials {
        Credentials::Identity(identity) => {
            let form = form(&scope, service.as_deref(), identity);
            http.post_form(&realm, form).await
        }
        Credentials::User(..) | Credentials::None => {
            let header = match credentials {
                Credentials::User(user, password) => Some(basic_header(user, password)?),
                _ => None,
            };
            let mut asked = realm.clone();
            asked.query_pairs_mut().append_pair("scope", &scope);
            if let Some(service) = &service {
                asked.query_pairs_mut().append_pair("service", service);
            }
            http.get(&asked, None, header.as_ref()).await
        }
    };
    let bytes = match response.and_then(good) {
        Ok(response) => body(response, MAX_TOKEN).await,
        Err(why) => Err(why),
    };
    let bytes = bytes.map_err(&failed)?;
    // The error would show what could not be read.
    let token: Token = serde_json::from_slice(&bytes).map_err(|_| failed("it cannot be read".into()))?;
    let token = token.token.or(token.access_token).ok_or_else(|| failed("there is none in the answer".into()))?;
    secret(format!("Bearer {token}"))
}
