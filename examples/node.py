"""A workflow node: prints each new state of a connection as it arrives. Needs nats-py.

    NATS_URL=nats://127.0.0.1:4222 NATS_USER=demo NATS_PASSWORD=… python3 node.py A… slack workspace1
"""

import asyncio
import datetime
import json
import os
import sys

import nats


class TokenSource:
    """Keeps the newest state of one connection: subscribe, ask, keep the state with the higher sequence."""

    def __init__(self, account, integration, name):
        self.subject = f"ms.integration.oauth.{account}.{integration}.{name}"
        self.call = f"ms.oauth.{account}.token"
        self.question = json.dumps({"integration_id": integration, "connection_id": name}).encode()
        self.current = {"sequence": 0}
        self.changed = asyncio.Event()

    async def run(self):
        self.nc = await nats.connect(
            os.environ["NATS_URL"],
            user=os.environ["NATS_USER"],
            password=os.environ["NATS_PASSWORD"],
            max_reconnect_attempts=-1,
            reconnected_cb=self.ask,  # what was pushed in between is missed: ask again
        )
        await self.nc.subscribe(self.subject, cb=self.pushed)
        await self.nc.flush()  # subscribe before asking
        while True:
            await self.ask()
            await asyncio.sleep(self.until_near_expiry())

    async def pushed(self, message):
        # The body has no sequence: it is the record's, and the bus adds it.
        self.keep(json.loads(message.data) | {"sequence": int(message.headers["Nats-Sequence"])})

    async def ask(self, is_second=False):
        try:
            answer = await self.nc.request(self.call, self.question, timeout=25)
        except nats.errors.Error as error:  # the bus or the workers are away
            print(f"no answer: {error!r}", file=sys.stderr)
            return
        headers = answer.headers or {}
        if "Nats-Service-Error-Code" not in headers:
            self.keep(json.loads(answer.data))
            return
        print(headers["Nats-Service-Error-Code"], headers["Nats-Service-Error"], file=sys.stderr)
        # 404: no login yet, or it was deleted while this was away. A push comes a moment before its
        # connection is found: so twice unknown is deleted.
        if headers["Nats-Service-Error-Code"] == "404" and "access_token" in self.current:
            if is_second:
                self.current = {"sequence": self.current["sequence"], "status": "revoked"}
                self.changed.set()
            else:
                await asyncio.sleep(1)
                await self.ask(is_second=True)

    def keep(self, connection):
        if connection["sequence"] > self.current["sequence"]:
            self.current = connection
            self.changed.set()

    def until_near_expiry(self):
        """Seconds until a token that no push has replaced is asked for again."""
        if "expiry" not in self.current:
            return 60
        left = datetime.datetime.fromisoformat(self.current["expiry"]) - datetime.datetime.now(datetime.timezone.utc)
        return max(1, left.total_seconds() - min(30, self.current.get("expires_in", 0) / 4))


async def main():
    if len(sys.argv) != 4:
        sys.exit("usage: node.py <account> <integration> <connection>")
    source = TokenSource(*sys.argv[1:4])
    running = asyncio.create_task(source.run())
    while not running.done():
        await asyncio.wait([running, asyncio.create_task(source.changed.wait())], return_when=asyncio.FIRST_COMPLETED)
        source.changed.clear()
        connection = source.current
        if connection["sequence"]:
            # Here a node would call its provider with access_token. A token has no place in a log.
            length = len(connection.get("access_token", ""))
            print(f"sequence {connection['sequence']}: {connection['status']}, a token of {length} characters", flush=True)
    running.result()


if __name__ == "__main__":
    asyncio.run(main())
