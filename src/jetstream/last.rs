//! The newest message of a subject, as the stream's leader has it.
//!
//! The server answers a question through its API in JSON, with the message in base64. A direct read takes it half as much CPU
//! time, but any replica may answer, before it has the newest write. A stream with one replica has only its leader, so
//! there [`Nats::last`] reads directly.

use std::sync::atomic::Ordering;

use async_nats::client::Request;
use async_nats::header::NATS_SEQUENCE;
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::LastRawMessageErrorKind;
use serde::Serialize;

use super::client::Nats;
use super::error::NatsError;
use crate::subject::direct_get;

/// Status of the answer if no message matches.
const NO_MATCH: u16 = 404;

#[derive(Serialize)]
struct Question<'a> {
    last_by_subj: &'a str,
}

impl Nats {
    /// Reads directly from now on, as long as the connection's server is no part of a cluster. All streams must have one replica,
    /// and those that [`Nats::last`] reads must allow direct reads: the server does not answer otherwise.
    pub(crate) fn read_directly(&self) {
        self.may_read_directly.store(true, Ordering::Relaxed);
    }

    /// Returns the newest message of a subject, or of the subjects that match a pattern. Sees every confirmed write.
    pub(crate) async fn last(&self, stream: &str, subject: &str) -> Result<Option<StreamMessage>, NatsError> {
        if self.may_read_directly.load(Ordering::Relaxed) && self.is_standalone() {
            self.last_directly(stream, subject).await
        } else {
            self.last_by_api(stream, subject).await
        }
    }

    /// The same of a stream that may not allow direct reads.
    pub(crate) async fn last_by_api(&self, stream: &str, subject: &str) -> Result<Option<StreamMessage>, NatsError> {
        let connection = self.connected()?;
        match connection.stream(stream).await?.get_last_raw_message_by_subject(subject).await {
            Ok(message) => Ok(Some(message)),
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
            Err(error) if error.kind() == LastRawMessageErrorKind::InvalidSubject => Err(NatsError::unreadable(error)),
            Err(error) => Err(NatsError::of_request("cannot read a message")(error)),
        }
    }

    async fn last_directly(&self, stream: &str, subject: &str) -> Result<Option<StreamMessage>, NatsError> {
        // The subject is in the payload: the server caches permissions and routes by the subjects of requests.
        let question = serde_json::to_vec(&Question { last_by_subj: subject }).map_err(NatsError::unreadable)?;
        let answer = match self.request(&direct_get(stream), Request::new().payload(question.into())).await {
            // The stream is missing, or has no leader. The API says which.
            Err(NatsError::NotSent(_)) => return self.last_by_api(stream, subject).await,
            answer => answer?,
        };
        // A stored message may have a status of its own: an answer of the server that someone led into a bucket.
        if answer.headers.as_ref().is_some_and(|headers| headers.get(NATS_SEQUENCE).is_some()) {
            return answer.try_into().map(Some).map_err(NatsError::unreadable);
        }
        match answer.status.map(|status| status.as_u16()) {
            Some(NO_MATCH) => Ok(None),
            status => Err(NatsError::unreadable(format!("status {status:?} of a direct read"))),
        }
    }
}
