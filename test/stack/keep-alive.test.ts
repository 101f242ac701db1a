/** Keep-alive towards the client (RFC 9293 §3.8.4), in every state that has no other timer. */
import t from "tap";
import { drill, Flag, type KitOptions, same, tcpPacket } from "./kit.ts";

const ON = { keepAliveIdleMs: 60_000, keepAliveIntervalMs: 10_000, keepAliveProbes: 3 } as const;

interface Row {
  readonly name: string;
  readonly script: string;
  readonly tcp?: KitOptions["tcp"];
  readonly syn?: string;
}

const rows: readonly Row[] = [
  {
    name: "off by default: a silent flow stays for days (MUST-25)",
    tcp: {},
    script: "+864000 state ESTABLISHED",
  },
  {
    name: "a question at SND.NXT - 1 without text, then its reset when nobody answers (MUST-26, MUST-29, SHLD-12)",
    script: `
      +60 > . 0:0(0) ack 1
      +10 > . 0:0(0) ack 1
      +10 > . 0:0(0) ack 1
      +9.9 state ESTABLISHED
      +.1 > R. 1:1(0) ack 1
      gone FLOW_TIMEOUT
      ready syn,established,closed
    `,
  },
  {
    name: "behind data in both directions the numbers are those of the data",
    script: `
      write 100
      > P. 1:101(100) ack 1
      < P. 1:51(50) ack 101
      read 50
      +.02 > . 101:101(0) ack 51
      +59.98 > . 100:100(0) ack 51
      < . 51:51(0) ack 101
      +60 > . 100:100(0) ack 51
    `,
  },
  {
    name: "any answer begins the interval anew, also the one to the last question (MUST-29)",
    script: `
      +60 > . 0:0(0) ack 1
      +10 > . 0:0(0) ack 1
      +10 > . 0:0(0) ack 1
      +5 < . 1:1(0) ack 1
      +59.9 state ESTABLISHED
      +.1 > . 0:0(0) ack 1
      +10 > . 0:0(0) ack 1
      +10 > . 0:0(0) ack 1
      +10 > R. 1:1(0) ack 1
      gone FLOW_TIMEOUT
    `,
  },
  {
    name: "a client that is heard is not asked (MUST-26)",
    script: `
      +50 < . 1:1(0) ack 1
      +50 < P. 1:11(10) ack 1
      read 10
      +.02 > . 1:1(0) ack 11
      +59.9 state ESTABLISHED
      +.08 > . 0:0(0) ack 11
    `,
  },
  {
    name: "a client that has forgotten the connection resets it",
    script: "+60 > . 0:0(0) ack 1\n< R 1:1(0)\ngone FLOW_RESET",
  },
  {
    name: "its question carries timestamps where they were agreed on (RFC 7323 §3.2)",
    syn: "mss 1000,TS val 1 ecr 0",
    script: "+60 > . 0:0(0) ack 1 <TS val 60000 ecr 1>\n< . 1:1(0) ack 1 <TS val 2 ecr 60000>\n+60 > . 0:0(0) ack 1",
  },
  {
    name: "no question while data is on its way: its own timer finds out (MUST-26)",
    tcp: { ...ON, keepAliveIdleMs: 1000, dataRetries: 4 },
    script: `
      write 10
      > P. 1:11(10) ack 1
      +.2 > P. 1:11(10) ack 1
      +.4 > P. 1:11(10) ack 1
      +.8 > P. 1:11(10) ack 1
      +1.6 > P. 1:11(10) ack 1
      +3.1 state ESTABLISHED
      +.1 gone FLOW_TIMEOUT
    `,
  },
  {
    name: "no question beside the probes of a closed window, and none after the window has opened (MUST-26)",
    tcp: { ...ON, keepAliveIdleMs: 1000 },
    script: `
      < . 1:1(0) ack 1 win 0
      write 10
      +.2 > P. 1:2(1) ack 1
      < . 1:1(0) ack 1 win 0
      +.4 > P. 1:2(1) ack 1
      < . 1:1(0) ack 1 win 0
      +.8 > P. 1:2(1) ack 1
      < . 1:1(0) ack 1 win 0
      +1.6 > P. 1:2(1) ack 1
      +1 < . 1:1(0) ack 1 win 1000
      > P. 1:11(10) ack 1
      < . 1:1(0) ack 11
      +1 > . 10:10(0) ack 1
    `,
  },
  {
    name: "unanswered questions do not count against data that follows",
    script: `
      +60 > . 0:0(0) ack 1
      +10 > . 0:0(0) ack 1
      +1 write 10
      > P. 1:11(10) ack 1
      +.2 > P. 1:11(10) ack 1
      +.1 < . 1:1(0) ack 11
      +60 > . 10:10(0) ack 1
      +10 > . 10:10(0) ack 1
      +10 > . 10:10(0) ack 1
      +10 > R. 11:11(0) ack 1
    `,
  },
  {
    name: "CLOSE-WAIT: the client has sent FIN and vanishes",
    script: `
      < F. 1:1(0) ack 1
      > . 1:1(0) ack 2
      +60 > . 0:0(0) ack 2
      +10 > . 0:0(0) ack 2
      +10 > . 0:0(0) ack 2
      +10 > R. 1:1(0) ack 2
      gone FLOW_TIMEOUT
      ready syn,established,eof,closed
    `,
  },
  {
    name: "FIN-WAIT-2: the client has our FIN and vanishes; the question stands at our FIN",
    script: `
      end
      > F. 1:1(0) ack 1
      < . 1:1(0) ack 2
      +60 > . 1:1(0) ack 1
      < . 1:1(0) ack 2
      +60 > . 1:1(0) ack 1
      +10 > . 1:1(0) ack 1
      +10 > . 1:1(0) ack 1
      +10 > R. 2:2(0) ack 1
      gone FLOW_TIMEOUT
    `,
  },
  {
    name: "FIN-WAIT-2 that nobody reads ends in its own time, whatever the client says",
    tcp: { ...ON, keepAliveIdleMs: 1000, finWait2Ms: 5000 },
    script: `
      end
      > F. 1:1(0) ack 1
      < . 1:1(0) ack 2
      close
      +2 < . 1:1(0) ack 2
      +2.9 state FIN-WAIT-2
      +.1 gone
    `,
  },
  {
    name: "FIN-WAIT-1, then FIN-WAIT-2, closed from the beginning: no question",
    tcp: { ...ON, keepAliveIdleMs: 1000, finWait2Ms: 5000 },
    script: `
      close
      > F. 1:1(0) ack 1
      +.1 < . 1:1(0) ack 2
      +4.9 state FIN-WAIT-2
      +.1 gone
    `,
  },
  {
    name: "LAST-ACK has the timer of its FIN",
    tcp: { ...ON, keepAliveIdleMs: 1000, dataRetries: 3 },
    script: `
      < F. 1:1(0) ack 1
      > . 1:1(0) ack 2
      end
      > F. 1:1(0) ack 2
      +.2 > F. 1:1(0) ack 2
      +.4 > F. 1:1(0) ack 2
      +.8 > F. 1:1(0) ack 2
      +1.5 state LAST-ACK
      +.1 gone FLOW_TIMEOUT
    `,
  },
];

t.test("keep-alive", async (t) => {
  for (const { name, script, tcp = ON, syn } of rows) {
    drill(t, name, { tcp }, (d) => {
      d.establish(syn);
      d.run(script);
      if (d.flow.state === "CLOSED") same([d.stack.stats().flows, d.stack.stats().timersArmed], [{}, 0]);
    });
  }
});

drill(t, "one flow has it, another has not, at any time (MUST-24, MUST-27)", {}, (d) => {
  d.establish();
  const quiet = d.flow;
  d.use(50_000);
  d.establish();
  d.flow.setKeepAlive(5000);
  d.run("+5 > . 0:0(0) ack 1\n< . 1:1(0) ack 1\n+5 > . 0:0(0) ack 1");
  d.flow.setKeepAlive(0);
  d.run("+3600 state ESTABLISHED");
  d.flow.setKeepAlive(7_200_000);
  d.run("+7200 > . 0:0(0) ack 1");
  same([quiet.state, d.flow.state, d.stack.stats().timersArmed], ["ESTABLISHED", "ESTABLISHED", 1]);
  let thrown: unknown;
  try {
    quiet.setKeepAlive(500);
  } catch (error) {
    thrown = error;
  }
  same(thrown instanceof RangeError, true);
});

drill(t, "before the handshake is over it waits; after the end it means nothing", {}, (d) => {
  d.run("< S 0:0(0) win 65535 <mss 1000>");
  d.flow.setKeepAlive(2000);
  d.run("accept\n> S. 0:0(0) ack 1");
  d.flow.setKeepAlive(3000);
  d.run("< . 1:1(0) ack 1\n+3 > . 0:0(0) ack 1\n< R 1:1(0)\ngone FLOW_RESET");
  d.flow.setKeepAlive(1000);
  d.run("+10 gone FLOW_RESET");
  same(d.stack.stats().timersArmed, 0);
});

drill(t, "FIN-WAIT-2 that nobody reads cannot be prolonged", { tcp: { finWait2Ms: 5000 } }, (d) => {
  d.establish();
  d.run("close\n> F. 1:1(0) ack 1\n< . 1:1(0) ack 2");
  d.flow.setKeepAlive(100_000);
  d.run("+4.9 state FIN-WAIT-2\n+.1 gone");
});

drill(t, "with a full queue the question is asked later, and none is counted", { tcp: ON, manual: true }, (d) => {
  const segment = (fields: object): void => {
    d.deliver(tcpPacket(d.family, { seq: d.irs + 1, ack: d.iss + 1, flags: Flag.A, ...fields }));
  };
  segment({ seq: d.irs, flags: Flag.S });
  d.flow.accept();
  d.take();
  segment({});
  d.take();
  d.takeOut();
  const fill = (): void => {
    const strange = tcpPacket(d.family, { sourcePort: 3, seq: 1, ack: 1, flags: Flag.A });
    while (d.stack.queue.hasRoom()) d.deliver(strange.slice());
  };
  const questions = (seconds: number): number => {
    d.advance(d.now + seconds * 1000);
    d.take();
    return d.takeOut().filter(({ tcp }) => tcp?.destinationPort !== 3).length;
  };
  fill();
  same(questions(60.01), 0);
  fill();
  same([questions(10), questions(10), questions(10), questions(10)], [0, 1, 1, 1]);
  same(d.flow.state, "ESTABLISHED");
  same([questions(10), d.flow.state, d.flow.error], [1, "CLOSED", "FLOW_TIMEOUT"]);
});

drill(t, "a thousand flows that are off have no timer; each that is on has one", {}, (d) => {
  const establish = (count: number, from: number): void => {
    for (let i = 0; i < count; i++) {
      const segment = (fields: { seq: number; ack?: number; flags: number }): void => {
        d.deliver(tcpPacket(d.family, { sourcePort: from + i, ...fields }));
      };
      segment({ seq: d.irs, flags: Flag.S });
      d.flow.accept();
      d.drain();
      segment({ seq: d.irs + 1, ack: d.iss + 1, flags: Flag.A });
    }
    d.takeOut();
  };
  establish(1000, 1);
  d.advance(d.now + 10_000);
  same([d.stack.stats().timersArmed, d.stack.nextTimeout()], [0, Number.POSITIVE_INFINITY]);
  for (const flow of d.flows) flow.setKeepAlive(60_000);
  same(d.stack.stats().timersArmed, 1000);
  d.advance(d.now + 60_010);
  same([d.takeOut().length, d.stack.stats().timersArmed], [1000, 1000]);
  for (const flow of d.flows) flow.abort();
  d.drain();
  d.takeOut();
  // An entry of the wheel goes with its flow.
  same([d.stack.stats().timersArmed, d.stack.nextTimeout()], [0, Number.POSITIVE_INFINITY]);
});
