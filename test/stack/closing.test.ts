/** The ways a flow ends: half-closes, simultaneous close, TIME-WAIT, resets, timeouts. Behaviours 50 to 64. */
import t from "tap";
import {
  Drill,
  drill,
  Flag,
  isStream,
  Kit,
  type KitOptions,
  same,
  showReady,
  streamBytes,
  tcpOptions,
  tcpPacket,
} from "./kit.ts";

interface Row {
  readonly name: string;
  readonly script: string;
  readonly tcp?: KitOptions["tcp"];
  readonly syn?: string;
}

/** To TIME-WAIT by the stack's own FIN first; the client's numbers are at 2, ours at 2. */
const TO_TIME_WAIT = `
  end
  > F. 1:1(0) ack 1
  < . 1:1(0) ack 2
  < F. 1:1(0) ack 2
  > . 2:2(0) ack 2
  state TIME-WAIT
`;

const half: readonly Row[] = [
  {
    name: "the client closes first; data goes on to it for hours, then ours (RFC 9293 §3.6)",
    script: `
      < F. 1:1(0) ack 1
      > . 1:1(0) ack 2
      state CLOSE-WAIT
      ready syn,established,eof
      +7200 write 10
      > P. 1:11(10) ack 2
      +.1 < . 2:2(0) ack 11
      +7200 write 10
      > P. 11:21(10) ack 2
      < . 2:2(0) ack 21
      end
      > F. 21:21(0) ack 2
      state LAST-ACK
      +.1 < . 2:2(0) ack 22
      gone
      ready closed
    `,
  },
  {
    name: "we close first; data comes from the client for hours, then its FIN (RFC 9293 §3.6)",
    script: `
      end
      > F. 1:1(0) ack 1
      state FIN-WAIT-1
      +.1 < . 1:1(0) ack 2
      state FIN-WAIT-2
      +7200 < P. 1:11(10) ack 2
      read 10
      +.02 > . 2:2(0) ack 11
      +7200 < P. 11:21(10) ack 2
      read 10
      +.02 > . 2:2(0) ack 21
      < F. 21:21(0) ack 2
      > . 2:2(0) ack 22
      state TIME-WAIT
      ready syn,established,readable,eof,closed
    `,
  },
  {
    name: "data of the client in FIN-WAIT-1, before it has our FIN",
    script: `
      end
      > F. 1:1(0) ack 1
      < P. 1:11(10) ack 1
      read 10
      +.02 > . 2:2(0) ack 11
      < P. 11:21(10) ack 2
      state FIN-WAIT-2
      read 10
      +.02 > . 2:2(0) ack 21
    `,
  },
  {
    name: "the window opens by reading in FIN-WAIT-2",
    tcp: { recvBuffer: 2000 },
    script: `
      end
      > F. 1:1(0) ack 1
      < . 1:1001(1000) ack 2
      < . 1001:2001(1000) ack 2
      > . 2:2(0) ack 2001 win 0
      read 2000
      > . 2:2(0) ack 2001 win 2000
    `,
  },
];

const fins: readonly Row[] = [
  {
    name: "FIN waits for all that is queued",
    tcp: { initialCwnd: 1 },
    script: `
      write 1500
      > . 1:1001(1000) ack 1
      end
      state ESTABLISHED
      < . 1:1(0) ack 1001
      > FP. 1001:1501(500) ack 1
      state FIN-WAIT-1
      < . 1:1(0) ack 1502
      state FIN-WAIT-2
    `,
  },
  {
    name: "FIN is sent again with backoff (RFC 9293 §3.10.8)",
    script: `
      end
      > F. 1:1(0) ack 1
      +.2 > F. 1:1(0) ack 1
      +.4 > F. 1:1(0) ack 1
      < . 1:1(0) ack 2
      +100 state FIN-WAIT-2
    `,
  },
  {
    name: "FIN and data are sent again together",
    tcp: { initialCwnd: 1 },
    script: `
      write 1500
      > . 1:1001(1000) ack 1
      end
      < . 1:1(0) ack 1001
      > FP. 1001:1501(500) ack 1
      +.2 > FP. 1001:1501(500) ack 1
      < . 1:1(0) ack 1501
      state FIN-WAIT-1
      +.2 > F. 1501:1501(0) ack 1
      < . 1:1(0) ack 1502
      state FIN-WAIT-2
    `,
  },
  {
    name: "a lost FIN after data is found by duplicate ACKs of what the client sends",
    script: `
      write 10
      > P. 1:11(10) ack 1
      end
      > F. 11:11(0) ack 1
      < . 1:1(0) ack 1
      < . 1:1(0) ack 1
      < . 1:1(0) ack 1
      > FP. 1:11(10) ack 1
    `,
  },
  {
    name: "LAST-ACK is bounded when the client is gone (RFC 1122 §4.2.3.5)",
    tcp: { dataRetries: 2 },
    script: `
      < F. 1:1(0) ack 1
      > . 1:1(0) ack 2
      end
      > F. 1:1(0) ack 2
      +.2 > F. 1:1(0) ack 2
      +.4 > F. 1:1(0) ack 2
      +.7 state LAST-ACK
      +.2 gone FLOW_TIMEOUT
    `,
  },
  {
    name: "CLOSING is bounded when the client is gone",
    tcp: { dataRetries: 2 },
    script: `
      end
      > F. 1:1(0) ack 1
      < F. 1:1(0) ack 1
      > . 2:2(0) ack 2
      state CLOSING
      +.2 > F. 1:1(0) ack 2
      +.4 > F. 1:1(0) ack 2
      +.7 state CLOSING
      +.2 gone FLOW_TIMEOUT
    `,
  },
  {
    name: "simultaneous close (RFC 9293 §3.6, figure 13)",
    script: `
      end
      > F. 1:1(0) ack 1
      < F. 1:1(0) ack 1
      > . 2:2(0) ack 2
      state CLOSING
      < . 2:2(0) ack 2
      state TIME-WAIT
      ready syn,established,eof,closed
    `,
  },
  {
    name: "simultaneous close, the client's FIN again instead of its ACK",
    script: `
      end
      > F. 1:1(0) ack 1
      < F. 1:1(0) ack 1
      > . 2:2(0) ack 2
      < F. 1:1(0) ack 2
      > . 2:2(0) ack 2
      state CLOSING
      +.2 > F. 1:1(0) ack 2
      < . 2:2(0) ack 2
      state TIME-WAIT
    `,
  },
  {
    name: "FIN that acknowledges ours: TIME-WAIT at once",
    script: "end\n> F. 1:1(0) ack 1\n< F. 1:1(0) ack 2\n> . 2:2(0) ack 2\nstate TIME-WAIT",
  },
  {
    name: "FIN with data that acknowledges ours: TIME-WAIT, and the data can be read",
    script: `
      end
      > F. 1:1(0) ack 1
      < FP. 1:11(10) ack 2
      > . 2:2(0) ack 12
      state TIME-WAIT
      ready syn,established,readable,eof,closed
      read 10
    `,
  },
  {
    name: "end() twice and after the end has no effect",
    script: "end\n> F. 1:1(0) ack 1\nend\n< R 1:1(0)\nend\ngone FLOW_RESET",
  },
];

const timeWait: readonly Row[] = [
  {
    name: "it lasts 60 s and leaves nothing (RFC 9293 §3.3.2)",
    script: `${TO_TIME_WAIT}+59.9 < F. 1:1(0) ack 2\n> . 2:2(0) ack 2`,
  },
  {
    name: "the FIN again is acknowledged again, and the wait begins anew (RFC 9293 §3.10.7.8)",
    script: `
      ${TO_TIME_WAIT}
      +50 < F. 1:1(0) ack 2
      > . 2:2(0) ack 2
      +50 < F. 1:1(0) ack 2
      > . 2:2(0) ack 2
      +61 < F. 1:1(0) ack 2
      > R 2:2(0)
    `,
  },
  {
    name: "data in it is acknowledged, not taken",
    script: `${TO_TIME_WAIT}< P. 2:12(10) ack 2\n> . 2:2(0) ack 2\n< P. 1:2(1) ack 2\n> . 2:2(0) ack 2`,
  },
  {
    name: "a reset does not end it (RFC 1337)",
    script: `${TO_TIME_WAIT}< R 2:2(0)\n< R. 2:2(0) ack 2\n< F. 1:1(0) ack 2\n> . 2:2(0) ack 2`,
  },
  {
    name: "an acceptable ACK has no answer: two ends in it are silent",
    script: `${TO_TIME_WAIT}< . 2:2(0) ack 2\n< . 2:2(0) ack 1\n< . 2:2(0) ack 900`,
  },
  {
    name: "its length is an option",
    tcp: { timeWaitMs: 1000 },
    script: `${TO_TIME_WAIT}+1.1 < F. 1:1(0) ack 2\n> R 2:2(0)`,
  },
  {
    name: "none at all by option",
    tcp: { timeWaitMs: 0 },
    script: `
      end
      > F. 1:1(0) ack 1
      < F. 1:1(0) ack 2
      > . 2:2(0) ack 2
      gone
      < F. 1:1(0) ack 2
      > R 2:2(0)
    `,
  },
  {
    name: "timestamps go on in it",
    syn: "mss 1000,TS val 1 ecr 0",
    script: `
      end
      > F. 1:1(0) ack 1
      +.1 < F. 1:1(0) ack 2 <TS val 1001 ecr 0>
      > . 2:2(0) ack 2 <TS val 100 ecr 1001>
      +1 < F. 1:1(0) ack 2 <TS val 2001 ecr 0>
      > . 2:2(0) ack 2 <TS val 1100 ecr 1001>
    `,
  },
  {
    name: "a SYN with a lower number is no new flow (RFC 9293 §3.6.1)",
    script: `${TO_TIME_WAIT}< S -5000:-5000(0)\n> . 2:2(0) ack 2\n< S 2:2(0)\n> . 2:2(0) ack 2`,
  },
  {
    name: "a SYN with FIN is none either",
    script: `${TO_TIME_WAIT}< SF 1000:1000(0)\n> . 2:2(0) ack 2`,
  },
];

const ends: readonly Row[] = [
  {
    name: "close: FIN behind what was written, later events are not told",
    script: `
      write 10
      > P. 1:11(10) ack 1
      close
      > F. 11:11(0) ack 1
      ready syn,established
      < F. 1:1(0) ack 12
      > . 12:12(0) ack 2
      ready -
    `,
  },
  {
    name: "close with unread data: a reset (RFC 9293 §3.10.4 SHLD-3, RFC 2525 §2.17)",
    script: "< P. 1:11(10) ack 1\nclose\n> R. 1:1(0) ack 11\ngone FLOW_ABORTED",
  },
  {
    name: "data after close: a reset (RFC 1122 §4.2.2.13)",
    script: `
      close
      > F. 1:1(0) ack 1
      < . 1:1(0) ack 2
      < P. 1:11(10) ack 2
      > R. 2:2(0) ack 1
      gone FLOW_ABORTED
      < P. 11:21(10) ack 2
      > R 2:2(0)
    `,
  },
  {
    name: "data after close, before our FIN has gone: a reset with a number the client takes",
    tcp: { initialCwnd: 1 },
    script: `
      write 3000
      > . 1:1001(1000) ack 1
      close
      +.2 > . 1:1001(1000) ack 1
      < P. 1:11(10) ack 1
      > R. 1001:1001(0) ack 1
      gone FLOW_ABORTED
    `,
  },
  {
    name: "old data after close is only acknowledged",
    script: `
      < P. 1:11(10) ack 1
      read 10
      +.02 > . 1:1(0) ack 11
      close
      > F. 1:1(0) ack 11
      < P. 1:11(10) ack 1
      > . 2:2(0) ack 11
      state FIN-WAIT-1
    `,
  },
  {
    name: "close in CLOSE-WAIT: LAST-ACK",
    script: `
      < F. 1:1(0) ack 1
      > . 1:1(0) ack 2
      close
      > F. 1:1(0) ack 2
      state LAST-ACK
      < . 2:2(0) ack 2
      gone
    `,
  },
  {
    name: "FIN-WAIT-2 ends after finWait2Ms once nobody reads (RFC 1122 §4.2.2.20)",
    tcp: { finWait2Ms: 5000 },
    script: `
      close
      > F. 1:1(0) ack 1
      < . 1:1(0) ack 2
      +4.9 state FIN-WAIT-2
      +.2 gone
      < P. 1:11(10) ack 2
      > R 2:2(0)
    `,
  },
  {
    name: "close in FIN-WAIT-2 starts that time",
    tcp: { finWait2Ms: 5000 },
    script: `
      end
      > F. 1:1(0) ack 1
      < . 1:1(0) ack 2
      +7200 state FIN-WAIT-2
      close
      +4.9 state FIN-WAIT-2
      +.2 gone
    `,
  },
  {
    name: "the client's FIN ends that time",
    tcp: { finWait2Ms: 5000, timeWaitMs: 20_000 },
    script: `
      close
      > F. 1:1(0) ack 1
      < . 1:1(0) ack 2
      +4 < F. 1:1(0) ack 2
      > . 2:2(0) ack 2
      +10 < F. 1:1(0) ack 2
      > . 2:2(0) ack 2
    `,
  },
  {
    name: "abort: a reset at SND.NXT (RFC 9293 §3.10.5)",
    script: "write 10\n> P. 1:11(10) ack 1\nabort\n> R. 11:11(0) ack 1\ngone FLOW_ABORTED\nready syn,established",
  },
  {
    name: "abort behind a zero-window probe: a reset inside the window; and so are ACKs (RFC 9293 §3.10.7.4)",
    script: `
      write 10
      > P. 1:11(10) ack 1
      < . 1:1(0) ack 11 win 0
      write 10
      +.2 > P. 11:12(1) ack 1
      < . 1:1(0) ack 11 win 0
      < P. 1:6(5) ack 11 win 0
      +.02 > . 11:11(0) ack 6
      read 5
      abort
      > R. 11:11(0) ack 6`,
  },
  {
    name: "abort during a timeout: a reset at the highest number sent",
    script:
      "write 3000\n> . 1:1001(1000) ack 1\n> . 1001:2001(1000) ack 1\n> P. 2001:3001(1000) ack 1\n+.2 > . 1:1001(1000) ack 1\nabort\n> R. 3001:3001(0) ack 1",
  },
  {
    name: "abort with unread data frees it",
    script: "< P. 1:1001(1000) ack 1\nabort\n> R. 1:1(0) ack 1001\nreadable 0",
  },
  {
    name: "abort in TIME-WAIT says nothing",
    script: `${TO_TIME_WAIT}abort`,
  },
  {
    name: "a reset of the client in every direction of a transfer (RFC 9293 §3.10.7.4)",
    script:
      "write 10\n> P. 1:11(10) ack 1\n< P. 21:31(10) ack 1\n> . 11:11(0) ack 1\n< R 1:1(0)\ngone FLOW_RESET\nready syn,established,closed",
  },
];

for (const [title, rows] of [
  ["half-close", half],
  ["FIN", fins],
  ["TIME-WAIT", timeWait],
  ["close and abort", ends],
] as const) {
  t.test(title, async (t) => {
    for (const { name, script, tcp, syn } of rows) {
      drill(t, name, tcp === undefined ? {} : { tcp }, (d) => {
        d.establish(syn);
        d.run(script);
        // Whatever the end was, nothing is left after two minutes.
        if (d.flow.state === "CLOSED" || d.flow.state === "TIME-WAIT") {
          d.advance(d.now + 120_000);
          const stats = d.stack.stats();
          same([stats.flows, stats.timersArmed, d.stack.nextTimeout() === Number.POSITIVE_INFINITY], [{}, 0, true]);
        }
      });
    }
  });
}

drill(t, "FIN goes with the last data (RFC 9293 §3.10.4)", {}, (d) => {
  d.establish();
  d.flow.write(streamBytes(1, 0, 1500));
  d.flow.end();
  d.run("> . 1:1001(1000) ack 1\n> FP. 1001:1501(500) ack 1\nstate FIN-WAIT-1");
});

t.test("TIME-WAIT, between flows", async (t) => {
  drill(
    t,
    "a SYN with a higher number is a new flow, with an ISN beyond the old numbers (RFC 9293 §3.6.1, RFC 6528)",
    {},
    (d) => {
      d.establish();
      d.run(TO_TIME_WAIT);
      const old = d.flow;
      d.run("< S 1000:1000(0) win 65535 <mss 1000>\nstate LISTEN\nready syn");
      same([d.flows.length, old === d.flow], [2, false]);
      d.run("accept\n> S. 0:0(0) ack 1001\n< . 1001:1001(0) ack 1\nstate ESTABLISHED");
      same(d.stack.stats().flows, { ESTABLISHED: 1 });
    },
  );

  t.test("the ISN lies beyond what the old flow has sent", (t) => {
    const kit = new Kit({ seed: 5 });
    const send = (seq: number, ack: number, flags: number): void => {
      kit.deliver(tcpPacket(4, { seq, ack, flags, options: tcpOptions(flags === Flag.S ? "mss 1000" : "") }));
    };
    send(100, 0, Flag.S);
    kit.flows[0]?.accept();
    kit.drain();
    const iss = kit.takeOut()[0]?.tcp?.seq ?? 0;
    send(101, iss + 1, Flag.A);
    // Faster than the clock of the ISN: half a megabyte in no time.
    let sent = 0;
    while (sent < 500_000) {
      kit.flows[0]?.write(new Uint8Array(10_000));
      kit.drain();
      for (const { tcp } of kit.takeOut()) sent += tcp?.payload.length ?? 0;
      send(101, (iss + 1 + sent) | 0, Flag.A);
    }
    kit.flows[0]?.end();
    kit.drain();
    send(101, (iss + 2 + sent) | 0, Flag.A | Flag.F);
    kit.takeOut();
    t.equal(kit.flows[0]?.state, "TIME-WAIT");
    send(5000, 0, Flag.S);
    kit.flows[1]?.accept();
    kit.drain();
    const next = kit.takeOut()[0]?.tcp?.seq ?? 0;
    t.equal(((next - (iss + 2 + sent)) | 0) > 0, true, `${next} is beyond ${(iss + 2 + sent) | 0}`);
    kit.finish();
    t.end();
  });

  drill(t, "with timestamps a later stamp decides, at equal ones the number (RFC 6191 §2)", {}, (d) => {
    const stamp = (val: number): string => `<mss 1000,TS val ${val} ecr 0>`;
    d.establish("mss 1000,TS val 1 ecr 0");
    d.run(`
      end
      > F. 1:1(0) ack 1
      < F. 1:1(0) ack 2 <TS val 500 ecr 0>
      > . 2:2(0) ack 2
      < S -5000:-5000(0) win 65535 ${stamp(499)}
      > . 2:2(0) ack 2
      < S 5000:5000(0) win 65535 ${stamp(499)}
      > . 2:2(0) ack 2
      < S -5000:-5000(0) win 65535 ${stamp(500)}
      > . 2:2(0) ack 2
      < S -5000:-5000(0) win 65535 ${stamp(501)}
      state LISTEN
    `);
  });

  drill(t, "answers to segments without text are limited (RFC 5961 §7)", {}, (d) => {
    d.establish();
    d.run(TO_TIME_WAIT);
    for (let i = 0; i < 1000; i++) d.deliver(tcpPacket(d.family, { seq: d.irs - 5, ack: d.iss + 2, flags: Flag.A }));
    same(d.takeOut().length, 32);
  });

  drill(t, "the table is bounded, the oldest goes first", { tcp: { maxTimeWait: 3 } }, (d) => {
    for (let port = 50_000; port < 50_005; port++) {
      d.use(port);
      d.establish();
      d.run(TO_TIME_WAIT);
      d.advance(d.now + 1000);
    }
    same(d.stack.stats().flows, { "TIME-WAIT": 3 });
    for (let port = 50_000; port < 50_005; port++) {
      d.deliver(tcpPacket(d.family, { sourcePort: port, seq: d.irs + 1, ack: d.iss + 2, flags: Flag.F | Flag.A }));
    }
    same(
      d.takeOut().map(({ tcp }) => tcp?.flags),
      [Flag.R, Flag.R, Flag.A, Flag.A, Flag.A],
    );
    d.advance(d.now + 61_000);
    same(d.stack.stats().flows, {});
  });

  drill(t, "flows in TIME-WAIT do not count as flows", { tcp: { maxFlows: 1 } }, (d) => {
    for (let port = 50_000; port < 50_010; port++) {
      d.use(port);
      d.establish();
      d.run(TO_TIME_WAIT);
    }
    same([d.stack.stats().flows, d.stack.openFlows], [{ "TIME-WAIT": 10 }, 0]);
  });

  drill(t, "each expires in its turn, restarted ones later", { tcp: { timeWaitMs: 10_000 } }, (d) => {
    const start = d.now;
    for (let port = 50_000; port < 50_004; port++) {
      d.use(port);
      d.establish();
      d.run(TO_TIME_WAIT);
      d.advance(d.now + 1000);
    }
    d.deliver(tcpPacket(d.family, { sourcePort: 50_001, seq: d.irs + 1, ack: d.iss + 2, flags: Flag.F | Flag.A }));
    d.takeOut();
    const sizes = [9999, 10_001, 12_001, 13_001, 14_001].map((at) => {
      d.advance(start + at);
      return d.stack.stats().flows["TIME-WAIT"] ?? 0;
    });
    same(sizes, [4, 3, 2, 1, 0]);
  });
});

t.test("flows do not disturb each other", async (t) => {
  drill(t, "a reset of one, data of the other", {}, (d) => {
    d.establish();
    const first = d.flow;
    d.use(50_000);
    d.establish();
    d.run("< R 1:1(0)\ngone FLOW_RESET");
    same(first.state, "ESTABLISHED");
    d.deliver(tcpPacket(d.family, { seq: d.irs + 1, ack: d.iss + 1, flags: Flag.A, payload: streamBytes(0, 0, 10) }));
    same(isStream(0, 0, first.read(10) ?? new Uint8Array(1)), true);
    d.advance(d.now + 30);
    d.takeOut();
  });

  drill(t, "a slot that is used again has a fresh flow", {}, (d) => {
    for (let i = 0; i < 100; i++) {
      d.use(50_000 + i);
      d.establish();
      d.run(
        "write 10\n> P. 1:11(10) ack 1\n< P. 1:11(10) ack 11\nread 10\n+.02 > . 11:11(0) ack 11\nabort\n> R. 11:11(0) ack 11",
      );
      same(d.stack.stats().flows, {});
    }
    same(d.stack.stats().timersArmed, 0);
  });

  drill(t, "reset() ends all with a reset each, close() none with any", {}, (d) => {
    for (let port = 50_000; port < 50_010; port++) {
      d.use(port);
      d.establish();
    }
    same(d.stack.reset(), true);
    d.drain();
    same(
      d.takeOut().map(({ tcp }) => tcp?.flags),
      new Array(10).fill(Flag.R | Flag.A),
    );
    same(d.stack.stats().flows, {});
    d.use(50_010);
    d.establish();
    d.stack.close();
    same([d.stack.transmit(), d.flow.state, d.flow.error], [null, "CLOSED", "FLOW_ABORTED"]);
    same([d.stack.receive(tcpPacket(d.family, { seq: 1, flags: Flag.S }), d.now), d.stack.nextReady()], [false, null]);
    same(d.stack.stats().drops["closed"], 1);
    d.stack.handleTimeout(d.now + 100_000);
    same([d.stack.nextTimeout(), d.flow.read(1), d.flow.write(new Uint8Array(1))], [Number.POSITIVE_INFINITY, null, 0]);
    d.stack.close();
  });

  drill(t, "a reset that finds no room in the queue is sent later", { manual: true }, (d) => {
    for (const port of [1, 2]) {
      d.deliver(tcpPacket(d.family, { sourcePort: port, seq: d.irs, flags: Flag.S }));
      if (port === 1) d.flow.accept();
    }
    d.take();
    d.deliver(tcpPacket(d.family, { sourcePort: 1, seq: d.irs + 1, ack: d.iss + 1, flags: Flag.A }));
    d.take();
    d.takeOut();
    const strange = tcpPacket(d.family, { sourcePort: 3, seq: 1, ack: 1, flags: Flag.A });
    while (d.stack.queue.hasRoom()) d.deliver(strange.slice());
    const [established, pending] = d.flows;
    established?.abort();
    pending?.reject("rst");
    same([established?.state, pending?.state], ["ESTABLISHED", "LISTEN"]);
    d.take();
    same(
      d
        .takeOut()
        .map(({ tcp }) => tcp?.flags)
        .slice(-2),
      [Flag.R | Flag.A, Flag.R | Flag.A],
    );
    same([established?.state, pending?.state, d.stack.stats().timersArmed], ["CLOSED", "CLOSED", 0]);
  });

  t.test("more resets than the queue takes: reset() says so", (t) => {
    const kit = new Kit({ manual: true, iss: 0, tcp: { synBacklog: 5000 } });
    for (let port = 1; port <= 2000; port++) {
      kit.deliver(tcpPacket(4, { sourcePort: port, seq: 1, flags: Flag.S }));
    }
    t.equal(kit.stack.reset(), false);
    t.equal(kit.stack.fill(), 1024);
    kit.stack.queue.clear();
    t.equal(kit.stack.reset(), true);
    t.equal(kit.stack.fill(), 976);
    kit.stack.queue.clear();
    t.equal(kit.stack.openFlows, 0);
    kit.finish();
    t.end();
  });
});

t.test("what the owner is told", (t) => {
  const d = new Drill();
  d.run("< S 0:0(0) win 65535");
  t.equal(showReady(d.takeReady()), "syn");
  d.flow.takeReady();
  t.equal(d.stack.nextReady(), null);
  d.run("accept\n> S. 0:0(0) ack 1\n< P. 1:11(10) ack 1\n< F. 11:11(0) ack 1\n> . 1:1(0) ack 12");
  t.equal(showReady(d.takeReady()), "established,readable,eof");
  t.equal(d.flow.tag, -1, "the owner's to set");
  d.flow.tag = 77;
  d.run("read 10\nend\n> F. 1:1(0) ack 12\n< . 12:12(0) ack 2\nready closed");
  t.same([d.flow.tag, d.flow.error, d.flow.state], [77, null, "CLOSED"]);
  d.finish();
  t.end();
});

drill(t, "activeAt follows what moves, not acknowledgments, probes and copies", {}, (d) => {
  /** When the flow got on, from the beginning of `script`; -1 when it did not. */
  const at = (script: string): number => {
    const start = d.now;
    const before = d.flow.activeAt;
    d.run(script);
    return d.flow.activeAt === before ? -1 : d.flow.activeAt - start;
  };
  const syn = d.now;
  d.run("< S 0:0(0) win 65535 <mss 1000>");
  same(d.flow.activeAt, syn);
  same(at("+5 accept\n> S. 0:0(0) ack 1"), 5000);
  // The client's ACK is news of our SYN only; the flow's clock began with accept().
  same(at("< . 1:1(0) ack 1"), -1);
  same(at("+1 write 10\n> P. 1:11(10) ack 1"), 1000);
  same(at("+.1 < . 1:1(0) ack 11"), 100);
  same(at("+1 < . 1:1(0) ack 11"), -1);
  same(at("+1 < . 0:0(0) ack 11\n> . 11:11(0) ack 1"), -1);
  same(at("+1 < P. 1:11(10) ack 11\n+.02 > . 11:11(0) ack 11"), 1000);
  same(at("+1 < P. 1:11(10) ack 11\n> . 11:11(0) ack 11"), -1);
  same(at("read 10\n+1 < . 11:1001(990) ack 11\n+.02 > . 11:11(0) ack 1001"), 1000);
  // A closed window is probed, and answered; nothing gets on.
  same(at("+.1 < . 1001:1001(0) ack 11 win 0"), -1);
  same(at("write 10\n+.2 > P. 11:12(1) ack 1001\n< . 1001:1001(0) ack 11 win 0"), 0);
  same(at("+.4 > P. 11:12(1) ack 1001\n< . 1001:1001(0) ack 11 win 0"), -1);
  same(at("+.1 < . 1001:1001(0) ack 11 win 100\n> P. 11:21(10) ack 1001"), -1);
  same(at("+.1 < . 1001:1001(0) ack 21 win 100"), 100);
  same(at("+1 < F. 1001:1001(0) ack 21\n> . 21:21(0) ack 1002"), 1000);
  same(at("+1 end\n> F. 21:21(0) ack 1002"), 1000);
  d.run("abort\n> R. 22:22(0) ack 1002");
});
