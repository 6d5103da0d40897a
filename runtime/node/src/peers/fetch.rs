//! Taking a component from a peer, part by part.

use std::time::Duration;

use bellwether_core::id::GroupName;
use bellwether_core::member::Member;
use bellwether_core::work::WorkError;
use bellwether_source::Digest;
use bytes::{Bytes, BytesMut};
use prost::Message;
use tokio::time::timeout;

use super::client::{Failure, Peers, unreachable};
use super::limits::SLACK;
use super::wire::{BYTES_HEADER, FetchRequest, WorkersClient, part};
use super::{Part, link::Link};

/// How long one part may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// The longest part that is taken, whatever the peer thinks.
const MAX_PART: usize = 16 << 20;

impl Peers {
    /// Takes a component of at most `most` bytes from a peer, and the text of its signatures. Nothing of it has been checked. Must
    /// be called within a tokio runtime.
    ///
    /// # Errors
    /// What kept the peer from giving it.
    pub async fn fetch(
        &self,
        from: &Member,
        group: &GroupName,
        digest: &Digest,
        most: u64,
    ) -> Result<(Bytes, String), WorkError> {
        let link = match self.inner.link(&from.address) {
            Ok(Some(link)) => link,
            Ok(None) => return Err(WorkError::Overloaded),
            Err(why) => return Err(unreachable(from, &why)),
        };
        let _slot = link.slots.try_acquire().map_err(|_| WorkError::Overloaded)?;
        let mut all = BytesMut::new();
        let mut signatures = String::new();
        loop {
            let offset = all.len() as u64;
            let next = timeout(PATIENCE, self.part(&link, from, group, digest, offset));
            let part = next.await.map_err(|_| WorkError::TimedOut)??;
            if part.whole > most {
                return Err(WorkError::TooLarge(most));
            }
            if offset == 0 {
                signatures = part.signatures;
            }
            all.extend_from_slice(&part.data);
            let have = all.len() as u64;
            if have > part.whole || (part.data.is_empty() && have < part.whole) {
                return Err(WorkError::Other(format!("it gave {have} bytes of {}", part.whole)));
            }
            if have == part.whole {
                return Ok((all.freeze(), signatures));
            }
        }
    }

    async fn part(
        &self,
        link: &Link,
        from: &Member,
        group: &GroupName,
        digest: &Digest,
        offset: u64,
    ) -> Result<Part, WorkError> {
        let request = FetchRequest {
            group: group.to_string(),
            sender: self.inner.this.to_string(),
            recipient: from.id.to_string(),
            digest: Bytes::copy_from_slice(digest.bytes()),
            offset,
        };
        let mut again = true;
        loop {
            let connection = link.connection(&self.inner.runtime).await.map_err(|why| unreachable(from, &why))?;
            let mut asked = tonic::Request::new(request.clone());
            asked.set_timeout(PATIENCE);
            asked.metadata_mut().insert(BYTES_HEADER, request.encoded_len().into());
            let mut client = WorkersClient::with_origin(connection.clone(), link.origin.clone())
                .max_decoding_message_size(MAX_PART + SLACK);
            let status = match client.fetch(asked).await {
                Ok(response) => return part(response.into_inner()),
                Err(status) => status,
            };
            match self.inner.failure(from, &connection, &status).await {
                Failure::Final(error) => return Err(error),
                // The connection was gone before the peer saw anything: once more, over a new one.
                Failure::Untouched(_) if again => again = false,
                Failure::Untouched(why) => return Err(unreachable(from, &why)),
            }
        }
    }
}
