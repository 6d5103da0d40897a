//! Who this node is to a registry, from docker's configuration (`$DOCKER_CONFIG`, or `~/.docker/config.json`), its
//! credential helpers included.

use std::time::Duration;

use docker_credential::{CredentialRetrievalError as Failed, DockerCredential};
use secrecy::SecretString;

/// How long a credential helper may take: some ask a service.
const HELPER: Duration = Duration::from_secs(30);

/// What to show to a registry. Neither shown by `Debug` nor kept longer than needed.
#[derive(Debug)]
pub(crate) enum Credentials {
    /// Nothing.
    None,
    /// A user and a password.
    User(String, SecretString),
    /// A token that another is given for.
    Identity(SecretString),
}

/// The credentials for a registry.
pub(crate) async fn of(registry: String) -> Result<Credentials, String> {
    // Helpers are programs, and are waited for.
    let asking = tokio::task::spawn_blocking(move || docker_credential::get_credential(&registry));
    let found = match tokio::time::timeout(HELPER, asking).await {
        Ok(Ok(found)) => found,
        Ok(Err(_)) => return Err("docker's configuration could not be read".into()),
        Err(_) => return Err(format!("docker's credential helper has not answered within {HELPER:?}")),
    };
    match found {
        Ok(DockerCredential::UsernamePassword(user, password)) => Ok(Credentials::User(user, password.into())),
        Ok(DockerCredential::IdentityToken(token)) => Ok(Credentials::Identity(token.into())),
        Err(Failed::NoCredentialConfigured | Failed::ConfigNotFound | Failed::ConfigReadError) => Ok(Credentials::None),
        // What a helper says may hold what it should keep.
        Err(Failed::HelperFailure { helper, stdout, stderr }) => {
            let unknown = |text: &str| text.contains("credentials not found");
            if unknown(&stdout) || unknown(&stderr) {
                return Ok(Credentials::None);
            }
            Err(format!("docker's credential helper {helper} failed; run `{helper} get` by hand to see why"))
        }
        Err(Failed::HelperCommunicationError) => {
            Err("docker's credential helper cannot be run: is it installed, and on this node's PATH?".into())
        }
        Err(Failed::MalformedHelperResponse) => {
            Err("docker's credential helper gave an answer that cannot be read".into())
        }
        Err(_) => Err("docker's configuration cannot be read: is its config.json sound?".into()),
    }
}
