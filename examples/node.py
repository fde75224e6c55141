"""A workflow node: prints each new state of a connection as it arrives. Needs nats-py.

    NATS_URL=nats://127.0.0.1:4222 NATS_USER=demo NATS_PASSWORD=… python3 node.py A… slack workspace1
"""

import asyncio
import datetime
import json
import os
import random
import sys

import nats

# Seconds. Pauses between questions without a newer answer double from the first to the longest.
FIRST_PAUSE = 0.5
LONGEST_PAUSE = 30
# Workers answer within this time, also if they have to wait for the provider.
TIMEOUT = 25
# Time until the next question when nothing is expected.
IDLE = 24 * 3600


class TokenSource:
    """Keeps the newest state of one connection: subscribe, ask, keep the state with the higher sequence."""

    def __init__(self, account, integration, name, changed):
        self.subject = f"ms.integration.oauth.{account}.{integration}.{name}"
        self.call = f"ms.oauth.{account}.token"
        self.question = json.dumps({"integration_id": integration, "connection_id": name}).encode()
        self.changed = changed
        self.current = {"sequence": 0}
        self.pause = FIRST_PAUSE
        self.unknown_since = None
        self.asking = self.timer = None

    async def run(self):
        while True:
            # The client closes itself when the bus refuses it while it is connected, as after a change of its password.
            closed = asyncio.Event()

            async def closed_cb():
                print(f"the connection was closed: {self.nc.last_error!r}; connecting again", file=sys.stderr)
                closed.set()

            self.nc = await nats.connect(
                os.environ["NATS_URL"],
                user=os.environ["NATS_USER"],
                password=os.environ["NATS_PASSWORD"],
                max_reconnect_attempts=-1,
                reconnected_cb=self.reconnected,
                closed_cb=closed_cb,
            )
            await self.nc.subscribe(self.subject, cb=self.pushed)
            await self.nc.flush()  # The server must have the subscription before the question.
            self.ask()
            await closed.wait()

    async def pushed(self, message):
        # The sequence is the record's: the server adds it as a header.
        self.keep(json.loads(message.data) | {"sequence": int(message.headers["Nats-Sequence"])})

    async def reconnected(self):
        """A push that was sent while this was disconnected is missed."""
        self.pause = FIRST_PAUSE
        self.ask()

    def ask(self):
        if self.asking:
            self.asking.cancel()  # After a reconnect the answer may never arrive.
        self.asking = asyncio.create_task(self.ask_worker())

    def ask_in(self, wait):
        if self.timer:
            self.timer.cancel()
        self.timer = asyncio.get_running_loop().call_later(wait, self.ask)

    async def ask_worker(self):
        self.ask_in(await self.answer())

    async def answer(self):
        """Asks a worker, and returns the seconds until the next question."""
        try:
            answer = await self.nc.request(self.call, self.question, timeout=TIMEOUT)
        except nats.errors.Error as error:  # The bus or the workers are away.
            print(f"no answer: {error!r}", file=sys.stderr)
            return self.after_pause()
        headers = answer.headers or {}
        if "Nats-Service-Error-Code" not in headers:
            self.unknown_since = None
            self.keep(json.loads(answer.data))
            return self.until_near_expiry()
        print(headers["Nats-Service-Error-Code"], headers["Nats-Service-Error"], file=sys.stderr)
        return self.unknown() if headers["Nats-Service-Error-Code"] == "404" else self.after_pause()

    def unknown(self):
        """No login yet, or a deletion that was missed. A push arrives before its connection can be found: so ask twice."""
        sequence = self.current["sequence"]
        if sequence == 0 or self.current["status"] == "revoked":
            return IDLE  # The next login is a push.
        if self.unknown_since != sequence:
            self.unknown_since = sequence
            return self.after_pause()
        self.current = {"sequence": sequence, "status": "revoked"}
        self.changed(self.current)
        return IDLE

    def keep(self, connection):
        if connection["sequence"] > self.current["sequence"]:
            self.current = connection
            self.pause, self.unknown_since = FIRST_PAUSE, None
            self.changed(connection)
            self.ask_in(self.until_near_expiry())

    def until_near_expiry(self):
        """A worker refreshes a token that is asked for so near its expiry."""
        if "expiry" not in self.current:
            return IDLE
        left = datetime.datetime.fromisoformat(self.current["expiry"]) - datetime.datetime.now(datetime.timezone.utc)
        wait = left.total_seconds() - min(30, self.current.get("expires_in", 0) / 4)
        return min(wait, IDLE) if wait > 0 else self.after_pause()

    def after_pause(self):
        """Random, so that many nodes do not ask at once."""
        wait = self.pause * random.uniform(1, 1.5)
        self.pause = min(2 * self.pause, LONGEST_PAUSE)
        return wait


def show(connection):
    # Here a node would call its provider with access_token. A token has no place in a log.
    length = len(connection.get("access_token", ""))
    print(f"sequence {connection['sequence']}: {connection['status']}, a token of {length} characters", flush=True)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit("usage: node.py <account> <integration> <connection>")
    asyncio.run(TokenSource(*sys.argv[1:], show).run())
