"""The whole way of a letter as a client in another language goes it, against a running server.

Makes its stubs from proto/ when it starts, so it shows what a user has who was given the proto files and nothing else.
Every step is asserted; the exit code tells whether all of them held.
"""

import argparse
import importlib
import pathlib
import sys
import tempfile
import threading
import time

import grpc
import grpc_tools
from google.protobuf import duration_pb2
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from grpc_tools import protoc

ROOT = pathlib.Path(__file__).resolve().parents[3]
# No call takes longer, and nothing is waited for longer.
PATIENCE_SECONDS = 60
# The smallest GIF there is: one transparent pixel.
PIXEL = bytes.fromhex("47494638396101000100800000000000ffffff21f90401000000002c00000000010001000002024401003b")

HEALTH_PROTO = """syntax = "proto3";
package grpc.health.v1;
message HealthCheckRequest { string service = 1; }
message HealthCheckResponse {
  enum ServingStatus { UNKNOWN = 0; SERVING = 1; NOT_SERVING = 2; SERVICE_UNKNOWN = 3; }
  ServingStatus status = 1;
}
service Health { rpc Check(HealthCheckRequest) returns (HealthCheckResponse); }
"""


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", default="127.0.0.1:50051", help="where Postroom listens")
    parser.add_argument("--ca", type=pathlib.Path, help="PEM file of the authority of Postroom's certificate: TLS")
    parser.add_argument("--cert", type=pathlib.Path, help="PEM file of a certificate to present: mutual TLS")
    parser.add_argument("--cert-key", type=pathlib.Path, help="PEM file of its private key")
    parser.add_argument("--key", required=True, help="a key with the role admin for sites/-")
    parser.add_argument("--site", default="python", help="id of the site to create")
    parser.add_argument("--smtp-host", required=True, help="an SMTP server with a login")
    parser.add_argument("--smtp-port", type=int, default=0)
    parser.add_argument("--security", default="STARTTLS", choices=["NONE", "STARTTLS", "IMPLICIT_TLS"])
    parser.add_argument("--username", required=True)
    parser.add_argument("--password", required=True)
    parser.add_argument("--sender", required=True, help="the account's address")
    parser.add_argument("--to", required=True)
    parser.add_argument("--cc", required=True)
    parser.add_argument("--bcc", required=True)
    parser.add_argument(
        "--expect-live",
        action="store_true",
        help="the SMTP server is slow: its dialogue must be seen before the letter is through",
    )
    return parser.parse_args()


def generate(folder):
    """Compiles the protos of the project, and that of health, into `folder`."""
    out = pathlib.Path(folder)
    health = out / "grpc_health.proto"
    health.write_text(HEALTH_PROTO)
    ours = sorted(str(path) for path in (ROOT / "proto/postroom/v1").glob("*.proto"))
    well_known = pathlib.Path(grpc_tools.__file__).parent / "_proto"
    includes = [f"-I{ROOT / 'proto'}", f"-I{out}", f"-I{well_known}"]
    command = ["protoc", *includes, f"--python_out={out}", f"--grpc_python_out={out}", *ours, str(health)]
    assert protoc.main(command) == 0, "protoc refused the protos"
    sys.path.insert(0, str(out))


def channel(options):
    if options.ca is None:
        return grpc.insecure_channel(options.address)
    read = {name: path and path.read_bytes() for name, path in [("cert", options.cert), ("key", options.cert_key)]}
    credentials = grpc.ssl_channel_credentials(options.ca.read_bytes(), read["key"], read["cert"])
    return grpc.secure_channel(options.address, credentials)


class Client:
    """Stubs over one channel, with the key in every call."""

    def __init__(self, options):
        names = ["settings", "accounts", "send", "logs"]
        self.pb = {name: importlib.import_module(f"postroom.v1.{name}_pb2") for name in names}
        stubs = {name: importlib.import_module(f"postroom.v1.{name}_pb2_grpc") for name in names}
        self.health_pb = importlib.import_module("grpc_health_pb2")
        self.channel = channel(options)
        self.settings = stubs["settings"].SettingsServiceStub(self.channel)
        self.accounts = stubs["accounts"].AccountsServiceStub(self.channel)
        self.send = stubs["send"].SendServiceStub(self.channel)
        self.logs = stubs["logs"].LogsServiceStub(self.channel)
        self.health = importlib.import_module("grpc_health_pb2_grpc").HealthStub(self.channel)
        self.options = options
        self.parent = f"sites/{options.site}"

    def call(self, method, request):
        metadata = [("authorization", f"Bearer {self.options.key}")]
        return method(request, metadata=metadata, timeout=PATIENCE_SECONDS)


def refusal(call):
    """Calls what must be refused: the code, and google.rpc.ErrorInfo out of the status details."""
    try:
        answer = call()
    except grpc.RpcError as error:
        status = rpc_status.from_call(error)
        assert status is not None, f"no status details: {error}"
        information = error_details_pb2.ErrorInfo()
        assert any(detail.Unpack(information) for detail in status.details), status
        assert information.domain == "postroom", information
        return error.code(), information
    raise AssertionError(f"not refused: {answer}")


def check_health(client):
    for service in ["", "liveness", "readiness", "postroom.v1.SendService"]:
        request = client.health_pb.HealthCheckRequest(service=service)
        # Without a key: a prober has none.
        answer = client.health.Check(request, timeout=PATIENCE_SECONDS)
        assert answer.status == client.health_pb.HealthCheckResponse.SERVING, (service, answer)


def check_keys(client):
    request = client.pb["settings"].ListSitesRequest()
    code, information = refusal(lambda: client.settings.ListSites(request, timeout=PATIENCE_SECONDS))
    assert (code, information.reason) == (grpc.StatusCode.UNAUTHENTICATED, "KEY_MISSING"), information


def create_site(client):
    pb = client.pb["settings"]
    site = pb.Site(display_name="Python's shop")
    created = client.call(client.settings.CreateSite, pb.CreateSiteRequest(site_id=client.options.site, site=site))
    assert created.site.name == client.parent, created
    assert created.site.HasField("create_time"), created
    again = pb.CreateSiteRequest(site_id=client.options.site)
    code, information = refusal(lambda: client.call(client.settings.CreateSite, again))
    assert (code, information.reason) == (grpc.StatusCode.ALREADY_EXISTS, "ALREADY_EXISTS"), information


def create_account(client):
    """With a wrong password first, which must come back with the server's own words and leave nothing behind."""
    pb, options = client.pb["accounts"], client.options

    def create(password):
        account = pb.Account(
            sender_name="Python Shop",
            sender_email=options.sender,
            host=options.smtp_host,
            port=options.smtp_port,
            security=pb.Security.Value(f"SECURITY_{options.security}"),
            password=pb.PasswordAuth(username=options.username, password=password),
        )
        request = pb.CreateAccountRequest(parent=client.parent, account=account)
        return client.call(client.accounts.CreateAccount, request)

    mistyped = options.password + "x"
    code, information = refusal(lambda: create(mistyped))
    assert (code, information.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "CHECK_FAILED"), information
    assert information.metadata["step"] == "AUTH", information
    assert information.metadata["code"] == "535", information
    assert information.metadata["reply"], information
    assert mistyped not in str(information), "the password came back"
    print(f"refused as it must be: {information.metadata['step']}: 535 {information.metadata['reply']}")
    listed = client.call(client.accounts.ListAccounts, pb.ListAccountsRequest(parent=client.parent))
    assert not listed.accounts, listed

    created = create(options.password).account
    assert created.name.startswith(f"{client.parent}/accounts/"), created
    assert created.check.state == pb.Check.STATE_PASSED, created
    assert created.password.password_set and not created.password.password, "a password must never be answered"
    fetched = client.call(client.accounts.GetAccount, pb.GetAccountRequest(name=created.name)).account
    assert (fetched.sender_email, fetched.etag) == (options.sender, created.etag), fetched
    return created


def letter(client):
    pb, options = client.pb["send"], client.options
    composed = pb.Composed(
        subject="Grüße aus Python",
        text="Hello,\n\nthe picture is in the other part.\n",
        html='<p>Hello,</p><p><img src="cid:pixel" alt="a pixel"></p>',
        attachments=[
            pb.Attachment(filename="invoice.txt", content_type="text/plain", content=b"Total: 12.50 EUR\r\n"),
            pb.Attachment(filename="pixel.gif", content_type="image/gif", content=PIXEL, content_id="pixel"),
        ],
        headers=[pb.Header(name="X-Order", value="4711")],
    )
    return pb.Message(
        from_address=options.sender, to=[options.to], cc=[options.cc], bcc=[options.bcc], composed=composed
    )


class Tail(threading.Thread):
    """Reads TailLogEntries and notes when each entry came."""

    def __init__(self, client):
        super().__init__(daemon=True)
        pb = client.pb["logs"]
        request = pb.TailLogEntriesRequest(parent=client.parent)
        metadata = [("authorization", f"Bearer {client.options.key}")]
        self.stream = client.logs.TailLogEntries(request, metadata=metadata, timeout=2 * PATIENCE_SECONDS)
        # The headers come when the server listens; what is sent from now on is seen.
        self.stream.initial_metadata()
        self.seen, self.changed, self.error = [], threading.Condition(), None
        self.resume_token = ""

    def run(self):
        try:
            for response in self.stream:
                with self.changed:
                    assert response.resume_token, "every response has a token"
                    self.resume_token = response.resume_token
                    self.seen += [(time.monotonic(), entry) for entry in response.entries]
                    self.changed.notify_all()
        except grpc.RpcError as error:
            if error.code() != grpc.StatusCode.CANCELLED:
                self.error = error

    def wait_for(self, condition):
        """Everything seen, as soon as `condition` holds for the entries."""

        def holds():
            return condition([entry for _, entry in self.seen])

        with self.changed:
            assert self.changed.wait_for(holds, PATIENCE_SECONDS), f"not seen; {self.error}; {self.seen}"
            return list(self.seen)

    def stop(self):
        self.stream.cancel()
        self.join(PATIENCE_SECONDS)
        assert self.error is None, self.error


def send_and_watch(client, account):
    pb, logs = client.pb["send"], client.pb["logs"]
    tail = Tail(client)
    tail.start()
    request = pb.SendMessageRequest(
        parent=client.parent, message=letter(client), request_id="order-4711", wait=duration_pb2.Duration(seconds=30)
    )
    sent = client.call(client.send.SendMessage, request).message
    answered = time.monotonic()
    assert sent.state == pb.Message.STATE_SENT, sent
    assert sent.account == account.name, sent
    assert sent.message_id.startswith("<") and sent.size > 0, sent
    assert len(sent.attempts) == 1 and sent.attempts[0].outcome == pb.Attempt.OUTCOME_SENT, sent
    assert sent.attempts[0].reply.code == 250 and sent.attempts[0].reply.text, sent
    kinds = [(recipient.kind, recipient.state) for recipient in sent.recipients]
    expected = [pb.Recipient.KIND_TO, pb.Recipient.KIND_CC, pb.Recipient.KIND_BCC]
    assert kinds == [(kind, pb.Recipient.STATE_SENT) for kind in expected], sent

    # The answer to the dot is the last that is said of a letter.
    dot = sent.attempts[0].reply.text

    def is_over(entries):
        return any(entry.kind == logs.LogEntry.KIND_SERVER and dot in entry.text for entry in entries)

    seen = tail.wait_for(is_over)
    tail.stop()
    entries = [entry for _, entry in seen]
    early = [entry.text for moment, entry in seen if moment < answered]
    if client.options.expect_live:
        assert any(text.startswith("MAIL FROM:") for text in early), "nothing was seen before the letter was through"
    assert all(entry.message == sent.name and entry.attempt == 1 for entry in entries), entries
    said = " ".join(entry.text for entry in entries)
    assert client.options.password not in said and "AUTH PLAIN <hidden>" in said, said
    print(f"sent {sent.name}; of its dialogue {len(early)} of {len(entries)} lines were seen before it was through")

    # The same id and content: the first result, no second letter.
    again = client.call(client.send.SendMessage, request).message
    assert again.name == sent.name, again
    request.message.composed.subject = "Another"
    code, information = refusal(lambda: client.call(client.send.SendMessage, request))
    assert (code, information.reason) == (grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED"), information
    return sent, entries


def read_back(client, account, sent, watched):
    pb, logs = client.pb["send"], client.pb["logs"]
    fetched = client.call(client.send.GetMessage, pb.GetMessageRequest(name=sent.name)).message
    assert fetched == sent, (fetched, sent)
    listed = client.call(client.send.ListMessages, pb.ListMessagesRequest(parent=client.parent)).messages
    assert [message.name for message in listed] == [sent.name], listed

    names = [log.name for log in client.call(client.logs.ListLogs, logs.ListLogsRequest(parent=client.parent)).logs]
    log = f"{client.parent}/logs/send-admin-{account.name.rsplit('/', 1)[1]}"
    assert log in names and f"{client.parent}/logs/check-admin-0" in names, names
    stored, token = [], ""
    while True:
        request = logs.ListLogEntriesRequest(name=log, message=sent.name, page_size=5, page_token=token)
        page = client.call(client.logs.ListLogEntries, request)
        assert len(page.entries) <= 5, page
        stored += page.entries
        token = page.next_page_token
        if not token:
            break
    assert stored[: len(watched)] == watched, "the tail and the stored log differ"
    assert any(entry.kind == logs.LogEntry.KIND_SERVER for entry in stored), stored


def send_many(client, sent):
    """One stream: a letter that was sent already, and one that is wrong. Each gets its own answer, and neither is sent."""
    pb = client.pb["send"]
    items = [
        pb.SendMessagesRequest(parent=client.parent, message=letter(client), request_id="order-4711", index=1),
        pb.SendMessagesRequest(parent=client.parent, message=pb.Message(to=["no address"]), index=2),
    ]
    results = {result.index: result for result in client.call(client.send.SendMessages, iter(items))}
    assert sorted(results) == [1, 2], results
    first, wrong = results[1], results[2]
    assert (first.request_id, first.message.name) == ("order-4711", sent.name), first
    assert not first.HasField("error") and not wrong.HasField("message"), results
    assert wrong.error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0], wrong
    assert wrong.error.reason == "INVALID_FIELD" and "message.to[0]" in wrong.error.text, wrong


def watch_events(client, sent):
    """What became of the letter, from the beginning of its day."""
    pb = client.pb["send"]
    request = pb.WatchEventsRequest(parent=client.parent, message=sent.name, start_time=sent.create_time)
    stream = client.call(client.send.WatchEvents, request)
    told = next(stream)
    stream.cancel()
    assert told.resume_token, told
    assert [event.WhichOneof("change") for event in told.events] == ["message"], told
    event = told.events[0].message
    assert (event.name, event.state, event.account) == (sent.name, sent.state, sent.account), told


def main():
    options = arguments()
    with tempfile.TemporaryDirectory(prefix="postroom-python-") as folder:
        generate(folder)
        client = Client(options)
        with client.channel:
            check_health(client)
            check_keys(client)
            create_site(client)
            account = create_account(client)
            sent, watched = send_and_watch(client, account)
            read_back(client, account, sent, watched)
            send_many(client, sent)
            watch_events(client, sent)
    print("all is well")


if __name__ == "__main__":
    main()
