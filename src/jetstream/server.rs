//! The server of the current connection, as its INFO describes it.

use super::client::Nats;

impl Nats {
    /// Returns the id of the connection's server, which is new at each of its starts. Empty before the first connection.
    ///
    /// In the moment of a reconnect this may still be the id of the server before. After a request that began later, it is
    /// not.
    pub(crate) fn server_id(&self) -> String {
        self.client().server_info().server_id
    }

    /// Returns true if the connection's server has JetStream itself and belongs to no cluster: its restart is then a new
    /// server id. A leaf node would hide the restarts of the server that has the streams.
    pub(crate) fn is_standalone(&self) -> bool {
        let info = self.client().server_info();
        info.jetstream && info.cluster.is_none()
    }
}
