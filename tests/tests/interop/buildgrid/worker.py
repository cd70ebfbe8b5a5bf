"""A worker for BuildGrid, which brings none: leases of the Bots service, run by buildbox-run.

    python worker.py SERVER BUILDBOX_RUN WORKSPACE SLOTS [RUNNER-ARGUMENT...]

SERVER is host:port; RUNNER-ARGUMENTs go to buildbox-run as they are. Ends with its parent's standard input.
"""

import os
import subprocess
import sys
import tempfile
import threading
import uuid

import grpc
from buildgrid._protos.build.bazel.remote.execution.v2 import remote_execution_pb2 as reapi
from buildgrid._protos.google.bytestream import bytestream_pb2, bytestream_pb2_grpc
from buildgrid._protos.google.devtools.remoteworkers.v1test2 import bots_pb2, bots_pb2_grpc

server, runner, workspace, slots, *runner_args = sys.argv[1:]
channel = grpc.insecure_channel(server)
byte_stream = bytestream_pb2_grpc.ByteStreamStub(channel)
bots = bots_pb2_grpc.BotsStub(channel)


def action_bytes(lease):
    """The lease's Action: in its payload, or where the payload's digest leads to."""
    action, digest = reapi.Action(), reapi.Digest()
    if lease.payload.Unpack(action):
        return action.SerializeToString()
    lease.payload.Unpack(digest)
    name = f"blobs/{digest.hash}/{digest.size_bytes}"
    answers = byte_stream.Read(bytestream_pb2.ReadRequest(resource_name=name), timeout=30)
    return b"".join(answer.data for answer in answers)


def run(lease):
    """Runs it; its lease is then complete."""
    with tempfile.TemporaryDirectory(dir=workspace) as place:
        asked, told = os.path.join(place, "action"), os.path.join(place, "result")
        with open(asked, "wb") as file:
            file.write(action_bytes(lease))
        command = [runner, f"--remote=http://{server}", "--disable-localcas", f"--workspace-path={place}",
                   f"--action={asked}", f"--action-result={told}", "--log-level=warning", *runner_args]
        ran = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=sys.stderr, timeout=300)
        if ran.returncode == 0:
            result = reapi.ActionResult()
            with open(told, "rb") as file:
                result.ParseFromString(file.read())
            lease.result.Pack(result)
        else:
            lease.status.code = grpc.StatusCode.INTERNAL.value[0]
            lease.status.message = f"buildbox-run ended with {ran.returncode}"
        lease.state = bots_pb2.COMPLETED


def serve():
    """One slot: a session that asks for a lease, runs it, says so with the next question."""
    session = bots_pb2.BotSession(bot_id=str(uuid.uuid4()), status=bots_pb2.OK)
    device = session.worker.devices.add(handle=str(uuid.uuid4()))
    device.properties.add(key="OSFamily", value="linux")
    session = bots.CreateBotSession(bots_pb2.CreateBotSessionRequest(parent="", bot_session=session), timeout=15)
    while True:
        for lease in session.leases:
            if lease.state in (bots_pb2.PENDING, bots_pb2.ACTIVE):
                run(lease)
        request = bots_pb2.UpdateBotSessionRequest(name=session.name, bot_session=session)
        # The server answers when there is work, or shortly before this is over.
        session = bots.UpdateBotSession(request, timeout=15)


for _ in range(int(slots)):
    threading.Thread(target=serve, daemon=True).start()
sys.stdin.read()
