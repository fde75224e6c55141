// A workflow node: prints each new state of a connection as it arrives. Needs Node.js 22 or newer.
//
//     npm ci
//     NATS_URL=nats://127.0.0.1:4222 NATS_USER=demo NATS_PASSWORD=… node node.mjs A… slack workspace1

import { connect } from "@nats-io/transport-node";

// Milliseconds. Pauses between questions without a newer answer double from the first to the longest.
const FIRST_PAUSE = 500;
const LONGEST_PAUSE = 30_000;
// Workers answer within this time, also if they have to wait for the provider.
const TIMEOUT = 25_000;
// Longest sleep. Timers fire at once if they get more than 24 days.
const IDLE = 24 * 3600 * 1000;

/** Keeps the newest state of one connection: subscribe, ask, keep the state with the higher sequence. */
class TokenSource {
  current = { sequence: 0 };
  #nc;
  #subject;
  #call;
  #question;
  #changed;
  #pause = FIRST_PAUSE;
  #unknownSince;
  #questions = 0;
  #timer;

  constructor(nc, [account, integration, name], changed) {
    this.#nc = nc;
    this.#subject = `ms.integration.oauth.${account}.${integration}.${name}`;
    this.#call = `ms.oauth.${account}.token`;
    this.#question = JSON.stringify({ integration_id: integration, connection_id: name });
    this.#changed = changed;
  }

  /** Runs until the NATS client is closed. */
  async run() {
    const pushes = this.#nc.subscribe(this.#subject);
    await this.#nc.flush(); // The server must have the subscription before the question.
    await Promise.all([this.#receive(pushes), this.#askAfterReconnects(), this.#ask()]);
    clearTimeout(this.#timer);
  }

  async #receive(pushes) {
    for await (const push of pushes) {
      // The sequence is the record's: the server adds it as a header.
      this.#keep({ ...push.json(), sequence: Number(push.headers.get("Nats-Sequence")) });
    }
  }

  /** A push that was sent while this was disconnected is missed. */
  async #askAfterReconnects() {
    for await (const status of this.#nc.status()) {
      if (status.type === "reconnect") {
        this.#pause = FIRST_PAUSE;
        this.#ask();
      }
    }
  }

  async #ask() {
    const number = ++this.#questions;
    const wait = await this.#answer();
    // After a reconnect a newer question is on its way, and sets the timer.
    if (number === this.#questions) this.#askIn(wait);
  }

  #askIn(wait) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#ask(), Math.min(wait, IDLE));
  }

  /** Asks a worker, and returns the milliseconds until the next question. */
  async #answer() {
    let answer;
    try {
      answer = await this.#nc.request(this.#call, this.#question, { timeout: TIMEOUT });
    } catch (error) {
      console.error(`no answer: ${error.message}`); // The bus or the workers are away.
      return this.#afterPause();
    }
    const code = answer.headers?.get("Nats-Service-Error-Code");
    if (!code) {
      this.#unknownSince = undefined;
      this.#keep(answer.json());
      return this.#untilNearExpiry();
    }
    console.error(code, answer.headers.get("Nats-Service-Error"));
    return code === "404" ? this.#unknown() : this.#afterPause();
  }

  /** No login yet, or a deletion that was missed. A push arrives before its connection can be found: so ask twice. */
  #unknown() {
    const { sequence, status } = this.current;
    if (sequence === 0 || status === "revoked") return IDLE; // The next login is a push.
    if (this.#unknownSince !== sequence) {
      this.#unknownSince = sequence;
      return this.#afterPause();
    }
    this.current = { sequence, status: "revoked" };
    this.#changed(this.current);
    return IDLE;
  }

  #keep(connection) {
    if (connection.sequence <= this.current.sequence) return;
    this.current = connection;
    this.#pause = FIRST_PAUSE;
    this.#unknownSince = undefined;
    this.#changed(connection);
    this.#askIn(this.#untilNearExpiry());
  }

  /** A worker refreshes a token that is asked for so near its expiry. */
  #untilNearExpiry() {
    const { expiry, expires_in = 0 } = this.current;
    if (!expiry) return IDLE;
    const left = Date.parse(expiry) - Date.now() - Math.min(30, expires_in / 4) * 1000;
    return left > 0 ? left : this.#afterPause();
  }

  /** Random, so that many nodes do not ask at once. */
  #afterPause() {
    const wait = this.#pause * (1 + Math.random() / 2);
    this.#pause = Math.min(2 * this.#pause, LONGEST_PAUSE);
    return wait;
  }
}

function show({ sequence, status, access_token = "" }) {
  // Here a node would call its provider with access_token. A token has no place in a log.
  console.log(`sequence ${sequence}: ${status}, a token of ${access_token.length} characters`);
}

const key = process.argv.slice(2);
if (key.length !== 3) {
  console.error("usage: node.mjs <account> <integration> <connection>");
  process.exit(2);
}
const { NATS_URL: servers, NATS_USER: user, NATS_PASSWORD: pass } = process.env;
// Without the last option the client stops trying when the bus refuses it twice, as it may while a password is replaced.
const options = { servers, user, pass, maxReconnectAttempts: -1, ignoreAuthErrorAbort: true };
let nc;
while (!nc) {
  try {
    nc = await connect(options);
  } catch (error) {
    console.error(`no connection: ${error.message}`); // With `waitOnFirstConnect` the client would not say why.
    await new Promise((resolve) => setTimeout(resolve, 2000));
  }
}
await new TokenSource(nc, key, show).run();
