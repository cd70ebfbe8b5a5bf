//! The buildlet's side of a supervisor.

use crate::keeper_client::bounded;
use crate::layout::exec::CONTROL;
use crate::wire;
use motefarm_net::unix;
use motefarm_proto::KEEPER_PROTOCOL_VERSION;
use motefarm_proto::mote::supervisor_request::Request;
use motefarm_proto::mote::{SupervisorReply, SupervisorRequest};
use std::io;
use std::path::Path;
use std::time::Duration;

/// For any answer; stdin may wait 2 s for the command's pipe.
const PATIENCE: Duration = Duration::from_secs(10);

/// Asks the supervisor of the execution in `dir`. `Ok(None)`: there is none any more.
pub(crate) async fn ask(dir: &Path, request: Request) -> io::Result<Option<SupervisorReply>> {
    let request = SupervisorRequest { version: KEEPER_PROTOCOL_VERSION, request: Some(request) };
    let asked = bounded(PATIENCE, async {
        let mut stream = unix::connect(&dir.join(CONTROL)).await?;
        wire::ask::<_, SupervisorReply>(&mut stream, &request, &[]).await
    });
    match asked.await {
        Ok(reply) if reply.unsupported => {
            Err(io::Error::new(io::ErrorKind::Unsupported, "the execution's supervisor is too old for this"))
        }
        Ok(reply) => Ok(Some(reply)),
        // Refused: nobody listens. Cut: it ended with the connection in its queue.
        Err(error) => match error.kind() {
            io::ErrorKind::NotFound
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::UnexpectedEof => Ok(None),
            _ => Err(error),
        },
    }
}
