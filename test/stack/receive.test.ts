/** Data from the client: order, SACK, windows, acknowledgments, challenges, timestamps, urgent data. Behaviours 25 to 49. */
import t from "tap";
import {
  Drill,
  drill,
  Flag,
  isStream,
  Kit,
  same,
  seededRandom,
  streamBytes,
  tcpOptions,
  tcpPacket,
  variants,
} from "./kit.ts";

function permutations<T>(items: readonly T[]): T[][] {
  if (items.length <= 1) return [[...items]];
  return items.flatMap((item, i) => permutations(items.toSpliced(i, 1)).map((rest) => [item, ...rest]));
}

/** Sends stream bytes [from, to) to the drill's flow, with its numbers. */
function sendRange(d: Drill, from: number, to: number, flags: number = Flag.A | Flag.P): void {
  d.deliver(
    tcpPacket(d.family, {
      seq: d.irs + 1 + from,
      ack: d.iss + 1,
      flags,
      payload: streamBytes(0, from, to - from),
    }),
  );
}

/** The newest ACK that was sent: relative ACK and SACK blocks. */
function lastAck(d: Drill): { ack: number; sack: [number, number][]; count: number } {
  const sent = d.takeOut();
  const tcp = sent.at(-1)?.tcp;
  if (tcp === undefined) return { ack: Number.NaN, sack: [], count: 0 };
  const sack = (tcp.options.sack ?? []).map(([left, right]): [number, number] => [
    (left - d.irs - 1) | 0,
    (right - d.irs - 1) | 0,
  ]);
  return { ack: (tcp.ack - d.irs - 1) | 0, sack, count: sent.length };
}

/** Runs of positions that are held, joined. */
function runsOf(held: readonly boolean[]): [number, number][] {
  const runs: [number, number][] = [];
  for (let i = 0; i < held.length; i++) {
    if (!held[i]) continue;
    const last = runs.at(-1);
    if (last !== undefined && last[1] === i) last[1] = i + 1;
    else runs.push([i, i + 1]);
  }
  return runs;
}

t.test("reassembly", async (t) => {
  drill(
    t,
    "all 120 orders of 5 segments give the same stream, with the right ACK and SACK each time (RFC 9293 §3.10.7.4)",
    {},
    (d) => {
      const sizes = [7, 1, 30, 2, 10];
      const starts = sizes.map((_, i) => sizes.slice(0, i).reduce((sum, size) => sum + size, 0));
      let port = 50_000;
      for (const order of permutations([0, 1, 2, 3, 4])) {
        d.use(port++);
        d.run("< S 0:0(0) win 65535 <mss 1000,sackOK>\naccept\n> S. 0:0(0) ack 1\n< . 1:1(0) ack 1");
        const held = new Array<boolean>(50).fill(false);
        for (const index of order) {
          const from = starts[index] ?? 0;
          const to = from + (sizes[index] ?? 0);
          held.fill(true, from, to);
          const wasGap = d.flow.info().outOfOrderBytes > 0;
          d.deliver(
            tcpPacket(d.family, {
              sourcePort: port - 1,
              seq: d.irs + 1 + from,
              ack: d.iss + 1,
              flags: Flag.A,
              payload: streamBytes(0, from, to - from),
            }),
          );
          const inOrder = held.indexOf(false) < 0 ? 50 : held.indexOf(false);
          const { ack, sack, count } = lastAck(d);
          if (wasGap || inOrder < to) {
            // RFC 5681 §4.2: at once for a gap, and when it closes.
            same([count, ack], [1, inOrder]);
            const wanted = runsOf(held).filter(([left]) => left > inOrder);
            same(
              [...sack].sort((a, b) => a[0] - b[0]),
              wanted,
            );
            if (inOrder < from)
              same(
                sack[0],
                wanted.find(([left, right]) => left <= from && from < right),
              );
          }
        }
        const bytes = d.flow.read(100) ?? new Uint8Array(0);
        same([bytes.length, isStream(0, 0, bytes)], [50, true]);
        d.flow.abort();
        d.drain();
        d.takeOut();
      }
    },
  );

  const overlaps: readonly { name: string; ranges: readonly (readonly [number, number])[] }[] = [
    {
      name: "the same twice",
      ranges: [
        [10, 20],
        [10, 20],
        [0, 10],
      ],
    },
    {
      name: "left part held",
      ranges: [
        [10, 20],
        [10, 30],
        [0, 10],
      ],
    },
    {
      name: "right part held",
      ranges: [
        [20, 30],
        [10, 30],
        [0, 10],
      ],
    },
    {
      name: "inside",
      ranges: [
        [10, 40],
        [20, 30],
        [0, 10],
      ],
    },
    {
      name: "around",
      ranges: [
        [20, 30],
        [10, 40],
        [0, 10],
      ],
    },
    {
      name: "around two",
      ranges: [
        [12, 14],
        [20, 30],
        [10, 40],
        [0, 10],
      ],
    },
    {
      name: "bridge over both edges",
      ranges: [
        [10, 20],
        [30, 40],
        [15, 35],
        [0, 10],
      ],
    },
    {
      name: "bridge that touches",
      ranges: [
        [10, 20],
        [30, 40],
        [20, 30],
        [0, 10],
      ],
    },
    {
      name: "in order over what is held",
      ranges: [
        [10, 20],
        [0, 15],
      ],
    },
    {
      name: "in order past what is held",
      ranges: [
        [10, 20],
        [0, 30],
      ],
    },
    {
      name: "in order over several",
      ranges: [
        [10, 12],
        [14, 16],
        [18, 20],
        [0, 19],
      ],
    },
    {
      name: "left of RCV.NXT and beyond",
      ranges: [
        [0, 10],
        [5, 20],
      ],
    },
    {
      name: "left of RCV.NXT, over a held run",
      ranges: [
        [0, 10],
        [15, 20],
        [5, 18],
      ],
    },
    { name: "one byte at a time, backwards", ranges: Array.from({ length: 20 }, (_, i) => [19 - i, 20 - i] as const) },
    {
      name: "wholly old",
      ranges: [
        [0, 20],
        [0, 20],
        [3, 5],
      ],
    },
  ];
  for (const { name, ranges } of overlaps) {
    drill(t, `overlap, ${name}: the stream is right (RFC 9293 §3.10.7.4)`, {}, (d) => {
      d.establish("mss 1000,sackOK");
      for (const [from, to] of ranges) sendRange(d, from, to);
      d.advance(d.now + 30);
      d.takeOut();
      const end = Math.max(...ranges.map(([, to]) => to));
      same([d.flow.readable, d.flow.info().outOfOrderBytes, d.stack.stats().bytesBuffered], [end, 0, end]);
      d.run(`read ${end}`);
    });
  }

  drill(t, "overlapping bytes that differ: what came first stays", {}, (d) => {
    d.establish();
    const send = (from: number, text: string): void => {
      const payload = Uint8Array.from(text, (letter) => letter.charCodeAt(0));
      d.deliver(tcpPacket(d.family, { seq: d.irs + 1 + from, ack: d.iss + 1, flags: Flag.A, payload }));
    };
    send(4, "bbbb");
    send(2, "cccccccc");
    send(0, "aaaaa");
    d.advance(d.now + 30);
    d.takeOut();
    same(String.fromCharCode(...(d.flow.read(100) ?? [])), "aaccbbbbcc");
  });

  drill(t, "random segments of a stream, any overlap and order (seeded)", {}, (d) => {
    const random = seededRandom(7);
    const below = (n: number): number => (random() >>> 0) % n;
    d.establish("mss 1000,sackOK");
    const length = 6000;
    const held = new Array<boolean>(length).fill(false);
    let read = 0;
    while (read < length) {
      const inOrder = held.indexOf(false) < 0 ? length : held.indexOf(false);
      const from = below(5) === 0 ? inOrder : below(length);
      const to = Math.min(length, from + 1 + below(400));
      held.fill(true, from, to);
      sendRange(d, from, to);
      d.takeOut();
      const bytes = below(3) === 0 ? d.flow.read(1 + below(1000)) : null;
      if (bytes !== null && !isStream(0, read, bytes)) throw new Error(`the stream differs after ${read}`);
      read += bytes?.length ?? 0;
      const next = held.indexOf(false) < 0 ? length : held.indexOf(false);
      same(d.flow.readable, next - read);
      same(d.flow.info().outOfOrderBytes, held.filter(Boolean).length - next);
    }
  });

  drill(
    t,
    "runs are bounded in number, and gaps still close (CVE-2018-5390)",
    { family: 4, slabBytes: 16 << 20 },
    (d) => {
      d.establish("mss 1000,wscale 7,sackOK");
      for (let i = 4999; i >= 1; i--) sendRange(d, 2 * i, 2 * i + 1);
      same(d.flow.info().outOfOrderBytes, 2048);
      same(d.stack.stats().drops["tcpMemory"], 4999 - 2048);
      d.takeOut();
      // What the bound cut off is sent again, as a client would.
      for (let at = 0; at < 10_000; at = lastAck(d).ack) sendRange(d, at, Math.min(10_000, at + 1000));
      same(d.flow.info().outOfOrderBytes, 0);
      d.takeOut();
      d.advance(d.now + 30);
      d.takeOut();
      d.run("read 10000");
    },
  );

  drill(t, "one-byte segments in order and with reordering (smoltcp 261)", { family: 4 }, (d) => {
    const random = seededRandom(3);
    d.establish("mss 1000,sackOK,wscale 7");
    for (let at = 0; at < 20_000; at += 8) {
      const order = [0, 1, 2, 3, 4, 5, 6, 7].sort(() => (random() & 1) * 2 - 1);
      for (const i of order) sendRange(d, at + i, at + i + 1);
      d.takeOut();
      if (at % 80 === 0) d.run(`read ${d.flow.readable}`);
      d.takeOut();
    }
    d.advance(d.now + 30);
    d.takeOut();
    d.run(`read ${d.flow.readable}`);
  });
});

t.test("SACK (RFC 2018)", async (t) => {
  drill(
    t,
    "newest block first, others in their order, four at most (RFC 2018 §4)",
    {},
    `
    < S 0:0(0) win 65535 <mss 1000,sackOK>
    accept
    > S. 0:0(0) ack 1
    < . 1:1(0) ack 1
    < P. 11:21(10) ack 1
    > . 1:1(0) ack 1 <sack 11:21>
    < P. 31:41(10) ack 1
    > . 1:1(0) ack 1 <sack 31:41 11:21>
    < P. 51:61(10) ack 1
    > . 1:1(0) ack 1 <sack 51:61 31:41 11:21>
    < P. 71:81(10) ack 1
    > . 1:1(0) ack 1 <sack 71:81 51:61 31:41 11:21>
    < P. 91:101(10) ack 1
    > . 1:1(0) ack 1 <sack 91:101 71:81 51:61 31:41>
    // Joins the two oldest.
    < P. 21:31(10) ack 1
    > . 1:1(0) ack 1 <sack 11:41 91:101 71:81 51:61>
    // A duplicate beyond the gap: its block comes first.
    < P. 51:61(10) ack 1
    > . 1:1(0) ack 1 <sack 51:61 11:41 91:101 71:81>
    < P. 1:11(10) ack 1
    > . 1:1(0) ack 41 <sack 51:61 91:101 71:81>
    < P. 41:51(10) ack 1
    > . 1:1(0) ack 61 <sack 91:101 71:81>
    < P. 61:91(30) ack 1
    > . 1:1(0) ack 101 <>
    read 100
  `,
  );
  drill(
    t,
    "three blocks beside timestamps",
    {},
    `
    < S 0:0(0) win 65535 <mss 1000,sackOK,TS val 1 ecr 0>
    accept
    > S. 0:0(0) ack 1
    < . 1:1(0) ack 1 <TS val 1 ecr 0>
    < P. 11:21(10) ack 1 <TS val 1 ecr 0>
    > . 1:1(0) ack 1 <TS val 0 ecr 1,sack 11:21>
    < P. 31:41(10) ack 1 <TS val 1 ecr 0>
    > . 1:1(0) ack 1 <TS val 0 ecr 1,sack 31:41 11:21>
    < P. 51:61(10) ack 1 <TS val 1 ecr 0>
    > . 1:1(0) ack 1 <TS val 0 ecr 1,sack 51:61 31:41 11:21>
    < P. 71:81(10) ack 1 <TS val 1 ecr 0>
    > . 1:1(0) ack 1 <TS val 0 ecr 1,sack 71:81 51:61 31:41>
  `,
  );
  drill(
    t,
    "never without SACK-permitted",
    {},
    `
    < S 0:0(0) win 65535 <mss 1000>
    accept
    > S. 0:0(0) ack 1
    < . 1:1(0) ack 1
    < P. 11:21(10) ack 1
    > . 1:1(0) ack 1 <>
    < P. 1:11(10) ack 1
    > . 1:1(0) ack 21 <>
    read 20
  `,
  );
  drill(t, "a gap is told by a pure ACK although data goes out (RFC 5681 §2)", {}, (d) => {
    d.establish("mss 1000,sackOK");
    d.flow.write(streamBytes(1, 0, 10));
    d.deliver(tcpPacket(d.family, { seq: d.irs + 11, ack: d.iss + 1, flags: Flag.A, payload: streamBytes(0, 10, 10) }));
    d.run(`
      > . 1:1(0) ack 1 <sack 11:21>
      > P. 1:11(10) ack 1
    `);
  });
  drill(
    t,
    "a FIN beyond the gap is no part of a block",
    {},
    `
    < S 0:0(0) win 65535 <mss 1000,sackOK>
    accept
    > S. 0:0(0) ack 1
    < . 1:1(0) ack 1
    < FP. 11:21(10) ack 1
    > . 1:1(0) ack 1 <sack 11:21>
    < P. 1:11(10) ack 1
    > . 1:1(0) ack 22 <>
    state CLOSE-WAIT
    read 20
  `,
  );
});

t.test("acknowledgments (RFC 9293 §3.8.6.3, RFC 5681 §4.2)", async (t) => {
  const rows: readonly { name: string; tcp?: object; script: string }[] = [
    {
      name: "one segment: after the delay",
      script: "< P. 1:1001(1000) ack 1\n+.02 > . 1:1(0) ack 1001",
    },
    {
      name: "two segments: at once",
      script: "< . 1:1001(1000) ack 1\n+.01 < . 1001:2001(1000) ack 1\n> . 1:1(0) ack 2001\n+1 state ESTABLISHED",
    },
    {
      name: "the delay is an option",
      tcp: { delayedAckMs: 100 },
      script: "< P. 1:1001(1000) ack 1\n+.1 > . 1:1(0) ack 1001",
    },
    { name: "no delay", tcp: { delayedAckMs: 0 }, script: "< P. 1:2(1) ack 1\n> . 1:1(0) ack 2" },
    {
      name: "data carries it",
      script:
        "< P. 1:1001(1000) ack 1\n+.01 write 5\n> P. 1:6(5) ack 1001\n+.15 < . 1001:1001(0) ack 6\n+1 state ESTABLISHED",
    },
    {
      name: "a super-segment of two counts as two",
      script: "< . 1:2001(2000) ack 1 seg 1000\n> . 1:1(0) ack 2001\n+1 state ESTABLISHED",
    },
    {
      name: "a super-segment of one and a bit counts as two",
      script: "< . 1:1002(1001) ack 1 seg 1000\n> . 1:1(0) ack 1002",
    },
    {
      name: "a super-segment of exactly one counts as one",
      script: "< . 1:1001(1000) ack 1 seg 1000\n+.02 > . 1:1(0) ack 1001",
    },
    { name: "FIN at once", script: "< F. 1:1(0) ack 1\n> . 1:1(0) ack 2\nstate CLOSE-WAIT" },
    {
      name: "a duplicate at once",
      script: "< P. 1:11(10) ack 1\n+.02 > . 1:1(0) ack 11\n< P. 1:11(10) ack 1\n> . 1:1(0) ack 11",
    },
    {
      name: "a keep-alive probe (SEQ = RCV.NXT-1) at once, with and without a byte (RFC 9293 §3.8.4)",
      script: `
        < P. 1:11(10) ack 1
        +.02 > . 1:1(0) ack 11
        +9 < . 10:10(0) ack 1
        > . 1:1(0) ack 11
        +9 < . 10:11(1) ack 1
        > . 1:1(0) ack 11
      `,
    },
    {
      name: "an ACK alone is not acknowledged",
      script: "< . 1:1(0) ack 1\n< . 1:1(0) ack 1\n+1 state ESTABLISHED",
    },
  ];
  for (const { name, tcp, script } of rows) {
    drill(t, name, tcp === undefined ? {} : { tcp }, (d) => {
      d.establish();
      d.run(script);
      d.run(`read ${d.flow.readable}`);
    });
  }

  drill(t, "segments of one batch get one acknowledgment (RFC 9293 MUST-58, MUST-59)", { manual: true }, (d) => {
    d.deliver(tcpPacket(d.family, { seq: d.irs, flags: Flag.S, options: tcpOptions("mss 1000") }));
    d.flow.accept();
    d.take();
    d.deliver(tcpPacket(d.family, { seq: d.irs + 1, ack: d.iss + 1, flags: Flag.A }));
    d.takeOut();
    for (let i = 0; i < 20; i++) sendRange(d, 1000 * i, 1000 * i + 1000);
    d.take();
    same(lastAck(d), { ack: 20_000, sack: [], count: 1 });
    d.run("read 20000");
    d.take();
    d.takeOut();
  });
});

t.test("the window offered (RFC 9293 §3.8.6, RFC 7323 §2)", async (t) => {
  drill(
    t,
    "it closes with unread bytes, and reading opens it by worthwhile steps (MUST-39)",
    { tcp: { recvBuffer: 2000 } },
    `
    < S 0:0(0) win 65535 <mss 1000>
    accept
    > S. 0:0(0) ack 1 win 2000
    < . 1:1(0) ack 1
    < . 1:1001(1000) ack 1
    < . 1001:2001(1000) ack 1
    > . 1:1(0) ack 2001 win 0
    // Less than a segment and less than half of the buffer is not worth a packet.
    read 999
    read 1
    > . 1:1(0) ack 2001 win 1000
    < . 2001:3001(1000) ack 1
    read 1000
    > . 1:1(0) ack 3001 win 1000
    read 1000
    > . 1:1(0) ack 3001 win 2000
  `,
  );
  drill(
    t,
    "probes of the closed window are answered, ACK and RST in them count (RFC 9293 §3.8.6.1, MUST-66)",
    { tcp: { recvBuffer: 1000 } },
    `
    < S 0:0(0) win 65535 <mss 1000>
    accept
    > S. 0:0(0) ack 1
    < . 1:1(0) ack 1
    write 10
    > P. 1:11(10) ack 1
    < P. 1:1001(1000) ack 1
    +.02 > . 11:11(0) ack 1001 win 0
    < . 1001:1002(1) ack 1
    > . 11:11(0) ack 1001 win 0
    // Its ACK is taken, its byte is not.
    < P. 1001:1002(1) ack 11
    > . 11:11(0) ack 1001 win 0
    < . 1000:1000(0) ack 11
    > . 11:11(0) ack 1001 win 0
    readable 1000
    // A FIN waits until the window opens.
    < F. 1001:1001(0) ack 11
    > . 11:11(0) ack 1001 win 0
    state ESTABLISHED
    < R 1002:1002(0)
    < R 1001:1001(0)
    gone FLOW_RESET
    read 1000
  `,
  );
  drill(
    t,
    "data beyond the window is cut off, with its FIN",
    { tcp: { recvBuffer: 1000 } },
    `
    < S 0:0(0) win 65535 <mss 1000>
    accept
    > S. 0:0(0) ack 1 win 1000
    < . 1:1(0) ack 1
    < FP. 1:1101(1100) ack 1
    +.02 > . 1:1(0) ack 1001 win 0
    state ESTABLISHED
    read 1000
    > . 1:1(0) ack 1001 win 1000
    < FP. 1001:1101(100) ack 1
    > . 1:1(0) ack 1102
    read 100
  `,
  );
  drill(
    t,
    "a FIN right at the edge of the window is taken",
    { tcp: { recvBuffer: 1000 } },
    `
    < S 0:0(0) win 65535 <mss 1000>
    accept
    > S. 0:0(0) ack 1 win 1000
    < . 1:1(0) ack 1
    < FP. 1:1001(1000) ack 1
    > . 1:1(0) ack 1002 win 0
    state CLOSE-WAIT
    read 1000
  `,
  );
  drill(
    t,
    "nothing is told of room behind a FIN",
    { tcp: { recvBuffer: 1000 } },
    `
    < S 0:0(0) win 65535 <mss 1000>
    accept
    > S. 0:0(0) ack 1 win 1000
    < . 1:1(0) ack 1
    < FP. 1:901(900) ack 1
    > . 1:1(0) ack 902 win 99
    read 900
      write 1500
      > . 1:1001(1000) ack 902
      > P. 1001:1501(500) ack 902
      < . 902:902(0) ack 1001
  `,
  );
  drill(
    t,
    "the whole buffer is offered once the window is scaled",
    { tcp: { recvBuffer: 300_000 } },
    `
    < S 0:0(0) win 65535 <mss 1000,wscale 7>
    accept
    > S. 0:0(0) ack 1 win 65535
    < . 1:1(0) ack 1
    < P. 1:1001(1000) ack 1
    +.02 > . 1:1(0) ack 1001 win 37375
    read 1000
  `,
  );

  /** Plays random segments within the window against random reads and watches the right edge. */
  function watchEdge(d: Drill, shift: number, recvBuffer: number, steps: number, sizes: number): void {
    const random = seededRandom(recvBuffer + shift);
    const below = (n: number): number => (random() >>> 0) % n;
    let sent = 0;
    let read = 0;
    let edge = Math.min(65_535, recvBuffer);
    const look = (): void => {
      for (const { tcp } of d.takeOut()) {
        if (tcp === undefined) continue;
        const ack = (tcp.ack - d.irs - 1) | 0;
        const next = ack + tcp.window * 2 ** shift;
        if (next < edge) throw new Error(`the edge went from ${edge} to ${next} (ack ${ack}, win ${tcp.window})`);
        edge = next;
      }
      if (edge - read > recvBuffer + Math.max(2 ** shift, recvBuffer >>> 3)) {
        throw new Error(`${edge - read} bytes are offered of a buffer of ${recvBuffer}`);
      }
    };
    for (let i = 0; i < steps; i++) {
      const size = Math.min(1 + below(sizes), edge - sent);
      if (size > 0) {
        sendRange(d, sent, sent + size);
        sent += size;
        look();
      }
      if (below(4) === 0) {
        const bytes = d.flow.read(1 + below(recvBuffer));
        d.drain();
        if (bytes !== null && !isStream(0, read, bytes)) throw new Error(`the stream differs after ${read}`);
        read += bytes?.length ?? 0;
        look();
      }
      d.advance(d.now + below(30));
      look();
    }
    if (sent < steps / 8) throw new Error(`only ${sent} bytes went`);
    read += d.flow.read(recvBuffer * 2)?.length ?? 0;
    d.drain();
    look();
  }
  for (const [recvBuffer, windowScale] of [
    [1, 0],
    [2000, 0],
    [5000, 3],
    [65_535, 5],
    [65_536, true],
    [100_000, 7],
    [300_000, true],
    [2 << 20, true],
  ] as const) {
    drill(
      t,
      `buffer ${recvBuffer}, scale ${windowScale}: the right edge never moves left (SHLD-14, RFC 7323 §2.4)`,
      { tcp: { recvBuffer, windowScale } },
      (d) => {
        d.deliver(tcpPacket(d.family, { seq: d.irs, flags: Flag.S, options: tcpOptions("mss 1000,wscale 2") }));
        d.flow.accept();
        d.drain();
        const shift = d.takeOut()[0]?.tcp?.options.wscale ?? 0;
        d.deliver(tcpPacket(d.family, { seq: d.irs + 1, ack: d.iss + 1, flags: Flag.A }));
        watchEdge(d, shift, recvBuffer, 600, 3000);
      },
    );
  }
  drill(
    t,
    "tiny segments close a scaled window too",
    { family: 4, tcp: { recvBuffer: 20_000, windowScale: 6 } },
    (d) => {
      d.establish("mss 1000,wscale 2");
      let window = 1;
      let sent = 0;
      for (; window > 0 && sent < 30_000; sent++) {
        sendRange(d, sent, sent + 1);
        window = d.takeOut().at(-1)?.tcp?.window ?? window;
      }
      same([window, sent <= 22_500 + 64], [0, true]);
      d.run(`read ${d.flow.readable}\n> . 1:1(0) ack ${sent + 1}`);
    },
  );
  drill(t, "without scaling an update comes only when the window was short", {}, (d) => {
    d.establish();
    for (let at = 0; at < 20_000; at += 1000) {
      sendRange(d, at, at + 1000);
      d.takeOut();
      d.run("read 1000");
    }
  });
});

t.test("challenges and answers are limited for each flow (RFC 5961 §7, CVE-2016-5696)", async (t) => {
  const rows: readonly { name: string; segment: string }[] = [
    { name: "RST in the window", segment: "R 100:100(0)" },
    { name: "SYN", segment: "S 100:100(0)" },
    { name: "ACK above SND.NXT", segment: ". 1:1(0) ack 2000" },
    { name: "ACK from outside of the window", segment: ". -5:-5(0) ack 1" },
    { name: "FIN from outside of the window", segment: "F. -5:-5(0) ack 1" },
  ];
  for (const { name, segment } of rows) {
    drill(t, `${name}: ten in a second, and another flow has ten of its own`, {}, (d) => {
      d.establish();
      const count = (): number => {
        try {
          d.run(`< ${segment}`);
        } catch {
          // Counted below.
        }
        return d.takeOut().length;
      };
      const burst = (n: number): number => Array.from({ length: n }, count).reduce((sum, one) => sum + one, 0);
      same(burst(100), 10);
      d.use(50_000);
      d.establish();
      same(burst(100), 10);
      d.advance(d.now + 1000);
      same(burst(100), 10);
    });
  }
  drill(t, "unacceptable data is always answered (RFC 9293 §3.10.7.4)", {}, (d) => {
    d.establish();
    for (let i = 0; i < 30; i++) d.run("< . -9:1(10) ack 1\n> . 1:1(0) ack 1");
  });
  drill(t, "no RST at any place of the edges starts a loop (smoltcp 338)", {}, (d) => {
    for (let offset = -2; offset <= 2; offset++) {
      for (const edge of [1, 65_536]) {
        d.use(40_100 + offset + (edge & 1) * 10);
        d.establish();
        d.deliver(
          tcpPacket(d.family, {
            sourcePort: 40_100 + offset + (edge & 1) * 10,
            seq: d.irs + edge + offset,
            flags: Flag.R,
          }),
        );
        if (d.takeOut().length > 1) throw new Error("more than one answer");
      }
    }
  });
});

t.test("urgent data stays in line (RFC 9293 §3.8.5, RFC 6093, CVE-2019-12255)", async (t) => {
  for (const pointer of [0, 1, 9, 10, 11, 65_535]) {
    drill(
      t,
      `pointer ${pointer} with data, without, with FIN`,
      {},
      `
      < S 0:0(0) win 65535 <mss 1000>
      accept
      > S. 0:0(0) ack 1
      < U. 1:1(0) ack 1 urg ${pointer}
      < PU. 1:11(10) ack 1 urg ${pointer}
      read 10
      < U. 11:11(0) ack 1 urg ${pointer}
      < PU. 21:31(10) ack 1 urg ${pointer}
      > . 1:1(0) ack 11
      < PU. 11:21(10) ack 1 urg ${pointer}
      > . 1:1(0) ack 31
      read 20
      < FU. 31:31(0) ack 1 urg ${pointer}
      > . 1:1(0) ack 32
      state CLOSE-WAIT
    `,
    );
  }
});

t.test(
  "strange options on a segment never end the flow (RFC 9293 MUST-7, CVE-2019-12258, CVE-2020-11912)",
  async (t) => {
    drill(t, "every kind with every short length, at every place, then data goes on", {}, (d) => {
      d.establish("mss 1000,sackOK,TS val 1 ecr 0");
      let at = 0;
      for (const kind of [0, 1, 2, 3, 4, 5, 8, 9, 34, 254, 255]) {
        for (const length of [0, 1, 2, 3, 4, 9, 10, 11, 18, 34, 40, 255]) {
          for (const lead of [0, 1, 2, 3, 17, 35, 38]) {
            const options = new Uint8Array(40).fill(1);
            options[lead] = kind;
            options[lead + 1] = length;
            options.fill(0xff, lead + 2);
            const payload = streamBytes(0, at, 1);
            d.deliver(tcpPacket(d.family, { seq: d.irs + 1 + at, ack: d.iss + 1, flags: Flag.A, options, payload }));
            if (d.flow.state !== "ESTABLISHED") throw new Error(`kind ${kind}, length ${length}: ${d.flow.state}`);
            // A well-formed timestamps option of all ones is an old one: PAWS drops it.
            at += d.flow.readable;
            d.takeOut();
            d.run(`read ${d.flow.readable}`);
          }
        }
      }
      d.advance(d.now + 50);
      d.takeOut();
      if (at < 900) throw new Error(`only ${at} bytes arrived`);
    });
    drill(t, "reserved bits are ignored (RFC 9293 §3.1)", {}, (d) => {
      d.establish();
      for (let reserved = 0; reserved < 16; reserved++) {
        const payload = streamBytes(0, reserved, 1);
        d.deliver(tcpPacket(d.family, { seq: d.irs + 1 + reserved, ack: d.iss + 1, flags: Flag.A, reserved, payload }));
      }
      d.takeOut();
      d.run("read 16");
    });
    drill(t, "a data offset outside of the segment is dropped", {}, (d) => {
      d.establish();
      for (const headerWords of [0, 1, 4, 6, 15]) {
        d.deliver(tcpPacket(d.family, { seq: d.irs + 1, ack: d.iss + 1, flags: Flag.A, headerWords }));
      }
      same(d.stack.stats().drops, { tcpDataOffset: 5 });
      d.run("");
    });
  },
);

t.test("timestamps (RFC 7323)", async (t) => {
  const open = `
    < S 0:0(0) win 65535 <mss 1000,TS val 100 ecr 0>
    accept
    > S. 0:0(0) ack 1 <mss MSS,TS val 0 ecr 100>
    +.012 < . 1:1(0) ack 1 <TS val 110 ecr 0>
  `;
  const rows: readonly { name: string; script: string }[] = [
    {
      name: "TSval is a clock of milliseconds with an offset for each flow (§5.4)",
      script: "+1 write 5\n> P. 1:6(5) ack 1 <TS val 1012 ecr 110>\n+.1 < . 1:1(0) ack 6 <TS val 1210 ecr 1012>",
    },
    {
      name: "TS.Recent follows segments that span Last.ACK.sent, not those beyond a gap (§4.3)",
      script: `
        < P. 11:21(10) ack 1 <TS val 120 ecr 0>
        > . 1:1(0) ack 1 <TS val 12 ecr 110>
        < P. 1:11(10) ack 1 <TS val 115 ecr 0>
        > . 1:1(0) ack 21 <TS val 12 ecr 115>
        read 20
      `,
    },
    {
      name: "with a delayed ACK the older of two stamps is echoed (§4.3)",
      script: `
        < . 1:1001(1000) ack 1 <TS val 120 ecr 0>
        < . 1001:2001(1000) ack 1 <TS val 130 ecr 0>
        > . 1:1(0) ack 2001 <TS val 12 ecr 120>
        read 2000
      `,
    },
    {
      name: "PAWS: an older stamp is dropped and acknowledged (§5.3 R1)",
      script: `
        < P. 1:11(10) ack 1 <TS val 109 ecr 0>
        > . 1:1(0) ack 1 <TS val 12 ecr 110>
        readable 0
        drops tcpUnacceptable 1
        < P. 1:11(10) ack 1 <TS val 110 ecr 0>
        read 10
        +.02 > . 1:1(0) ack 11
      `,
    },
    {
      name: "PAWS compares modulo 2^32 (§5.3)",
      script: `
        < P. 1:11(10) ack 1 <TS val 2147483757 ecr 0>
        +.02 > . 1:1(0) ack 11 <TS val 32 ecr 2147483757>
        < P. 11:21(10) ack 1 <TS val 2147483800 ecr 0>
        +.02 > . 1:1(0) ack 21
        < P. 21:31(10) ack 1 <TS val 2147483757 ecr 0>
        > . 1:1(0) ack 21
        read 20
      `,
    },
    {
      name: "a reset with an old stamp counts (§5.2)",
      script: "< R 1:1(0) <TS val 1 ecr 0>\ngone FLOW_RESET",
    },
    {
      name: "a stamp older than 24 days is void (§5.5)",
      script: `
        +2160000 < P. 1:11(10) ack 1 <TS val 5 ecr 0>
        +.02 > . 1:1(0) ack 11
        read 10
      `,
    },
    {
      name: "a segment without the option is taken",
      script: "< P. 1:11(10) ack 1\n+.02 > . 1:1(0) ack 11 <TS val 32 ecr 110>\nread 10",
    },
  ];
  for (const { name, script } of rows) {
    drill(t, name, {}, (d) => d.run((open + script).replace("MSS", String(d.mss))));
  }
  t.test("flows do not share a clock", (t) => {
    const kit = new Kit({ iss: 0 });
    const values = new Set<number | undefined>();
    for (let port = 1; port <= 50; port++) {
      kit.deliver(tcpPacket(4, { sourcePort: port, seq: 1, flags: Flag.S, options: tcpOptions("TS val 1 ecr 0") }));
      kit.flows.at(-1)?.accept();
      kit.drain();
      values.add(kit.takeOut()[0]?.tcp?.options.timestamps?.val);
    }
    t.equal(values.size, 50);
    kit.finish();
    t.end();
  });
});

t.test("FIN out of order (RFC 9293 §3.10.7.4)", async (t) => {
  const rows: readonly { name: string; script: string }[] = [
    {
      name: "it waits until the gap closes",
      script: `
        < F. 21:21(0) ack 1
        > . 1:1(0) ack 1
        < P. 11:21(10) ack 1
        > . 1:1(0) ack 1
        state ESTABLISHED
        < P. 1:11(10) ack 1
        > . 1:1(0) ack 22
        state CLOSE-WAIT
        read 20
      `,
    },
    {
      name: "a copy of it changes nothing",
      script: `
        < F. 11:11(0) ack 1
        > . 1:1(0) ack 1
        < F. 11:11(0) ack 1
        > . 1:1(0) ack 1
        < P. 1:11(10) ack 1
        > . 1:1(0) ack 12
        < F. 11:11(0) ack 1
        > . 1:1(0) ack 12
        state CLOSE-WAIT
        read 10
      `,
    },
    {
      name: "data in order beyond it is cut off",
      script: `
        < F. 11:11(0) ack 1
        > . 1:1(0) ack 1
        < P. 1:31(30) ack 1
        > . 1:1(0) ack 12
        state CLOSE-WAIT
        read 10
        readable 0
      `,
    },
    {
      name: "data out of order beyond it is cut off",
      script: `
        < F. 11:11(0) ack 1
        > . 1:1(0) ack 1
        < P. 6:31(25) ack 1
        > . 1:1(0) ack 1
        < P. 20:31(11) ack 1
        > . 1:1(0) ack 1
        < P. 1:6(5) ack 1
        > . 1:1(0) ack 12
        state CLOSE-WAIT
        read 10
        readable 0
      `,
    },
    {
      name: "bytes held beyond it came first: the FIN is ignored",
      script: `
        < P. 21:31(10) ack 1
        > . 1:1(0) ack 1
        < F. 11:11(0) ack 1
        > . 1:1(0) ack 1
        < P. 1:21(20) ack 1
        > . 1:1(0) ack 31
        state ESTABLISHED
        read 30
      `,
    },
    {
      name: "data after the FIN is ignored",
      script: `
        < FP. 1:11(10) ack 1
        > . 1:1(0) ack 12
        < P. 12:22(10) ack 1
        state CLOSE-WAIT
        read 10
        readable 0
      `,
    },
    {
      name: "FIN with PSH and data is taken whole (tun2proxy 196)",
      script: "< FP. 1:11(10) ack 1\n> . 1:1(0) ack 12\nstate CLOSE-WAIT\nready syn,established,readable,eof\nread 10",
    },
  ];
  for (const { name, script } of rows) {
    drill(t, name, {}, (d) => {
      d.establish();
      d.run(script);
    });
  }
});

t.test("reading", async (t) => {
  drill(t, "peek and consume hand out references; consume of too much throws", {}, (d) => {
    d.establish();
    sendRange(d, 0, 100);
    sendRange(d, 100, 150);
    d.takeOut();
    const refs = new Int32Array(12);
    same(d.flow.peek(refs, 2, 5), 2);
    same([refs[3], refs[5]], [100, 50]);
    const offset = refs[2] ?? 0;
    same(isStream(0, 0, d.slab.bytes.slice(offset, offset + 100)), true);
    same(d.flow.peek(refs, 0, 1), 1);
    d.flow.consume(110);
    same(d.flow.peek(refs, 0, 5), 1);
    same(isStream(0, 110, d.slab.bytes.slice(refs[0], (refs[0] ?? 0) + (refs[1] ?? 0))), true);
    let message = "";
    try {
      d.flow.consume(41);
    } catch (error) {
      message = String(error);
    }
    same(message, "RangeError: consume(41): only 40 bytes are readable");
    d.flow.compactUnread();
    same(isStream(0, 110, d.flow.read(40) ?? new Uint8Array(1)), true);
    same(d.flow.read(1), null);
    same(d.flow.peek(refs, 0, 5), 0);
  });
  drill(t, "what was received stays readable after a reset", {}, (d) => {
    d.establish();
    d.run("< P. 1:11(10) ack 1\n< R 11:11(0)\ngone FLOW_RESET\nreadable 10\nread 4\nread 6");
  });
  drill(t, "what was received and not read is given back by close() of the stack", {}, (d) => {
    d.establish();
    d.run("< P. 1:11(10) ack 1\n< R 11:11(0)\ngone FLOW_RESET\nreadable 10");
  });
  drill(t, "eof is told once everything is read", {}, (d) => {
    d.establish();
    d.run("< FP. 1:11(10) ack 1\n> . 1:1(0) ack 12");
    same([d.flow.finReceived, d.flow.eof], [true, false]);
    d.run("read 10");
    same([d.flow.finReceived, d.flow.eof], [true, true]);
  });
});

t.test("memory", async (t) => {
  t.test("unread packets share blocks: 10,000 small ones fit into a slab of 2 MiB", (t) => {
    const d = new Drill({ slabBytes: 2 << 20, tcp: { recvBuffer: 65_535 } });
    d.establish();
    for (let i = 0; i < 10_000; i++) sendRange(d, i, i + 1);
    t.equal(d.flow.readable, 10_000);
    d.takeOut();
    d.advance(d.now + 30);
    d.takeOut();
    d.run("read 10000");
    d.finish();
    t.end();
  });

  t.test("a slab that is used up: no exception, packets are dropped, and all goes on when there is room again", (t) => {
    for (const variant of variants({ slabBytes: 8 << 18 })) {
      const d = new Drill(variant);
      d.establish("mss 1000,wscale 7");
      sendRange(d, 0, 100);
      const taken: number[] = [];
      for (let block = d.slab.take(); block >= 0; block = d.slab.take()) taken.push(block);
      for (let at = 100; at < 400_000; at += 1000) sendRange(d, at, at + 1000);
      d.deliver(tcpPacket(d.family, { sourcePort: 50_000, seq: 1, flags: Flag.S }));
      t.equal(d.flow.write(streamBytes(1, 0, 100)), 0, "nothing can be written");
      d.drain();
      d.takeOut();
      t.equal((d.stack.stats().drops["tcpMemory"] ?? 0) > 0, true, "memory ran out");
      const [flow] = d.flows;
      t.equal(flow?.state, "ESTABLISHED");
      const bytes = flow?.read(1 << 24) ?? new Uint8Array(0);
      t.equal(bytes.length >= 100 && isStream(0, 0, bytes), true);
      for (const block of taken) d.slab.release(block);
      d.drain();
      d.takeOut();
      sendRange(d, bytes.length, bytes.length + 1000);
      t.equal(flow?.readable, 1000, "room again");
      t.equal(flow?.write(streamBytes(1, 0, 100)), 100);
      d.drain();
      t.equal(d.takeOut().at(-1)?.tcp?.payload.length, 100);
      d.finish();
    }
    t.end();
  });

  t.test("a window that could not open for want of memory opens when it comes back", (t) => {
    for (const variant of variants({ slabBytes: 8 << 18, tcp: { recvBuffer: 20_000 } })) {
      const d = new Drill(variant);
      d.establish("mss 1000");
      for (let at = 0; at < 20_000; at += 1000) sendRange(d, at, at + 1000);
      const window = d.takeOut().at(-1)?.tcp?.window ?? -1;
      t.equal(window < 10_000, true, `${window} is offered`);
      const taken: number[] = [];
      for (let block = d.slab.take(); block >= 0; block = d.slab.take()) taken.push(block);
      const bytes = d.flow.read(20_000) ?? new Uint8Array(0);
      t.equal(isStream(0, 0, bytes), true);
      d.drain();
      t.same([d.takeOut().length, d.stack.isStarved], [0, true]);
      for (const block of taken) d.slab.release(block);
      d.drain();
      t.equal(d.takeOut().at(-1)?.tcp?.window, 20_000);
      t.equal(d.stack.isStarved, false);
      d.finish();
    }
    t.end();
  });

  t.test("a flow that hoards does not stop the others", (t) => {
    const d = new Drill({ slabBytes: 16 << 18, tcp: { recvBuffer: 1 << 20 } });
    d.establish("mss 1000,wscale 7");
    const hoarder = d.flow;
    let sent = 0;
    for (let i = 0; i < 3000; i++) {
      sendRange(d, sent, sent + 1000);
      const { ack } = lastAck(d);
      if (ack > 0) sent = ack;
    }
    t.equal(hoarder.readable >= 65_000, true);
    d.use(50_000);
    d.establish("mss 1000");
    d.run(`
      write 3000
      > . 1:1001(1000) ack 1
      > . 1001:2001(1000) ack 1
      > P. 2001:3001(1000) ack 1
      < P. 1:1001(1000) ack 3001
      read 1000
      +.02 > . 3001:3001(0) ack 1001
    `);
    d.finish();
    t.end();
  });
});

t.test("segments beyond a gap that come in one batch (RFC 5681 §4.2)", async (t) => {
  for (const { name, options, acks } of [
    { name: "without SACK each is a duplicate ACK", options: "mss 1000", acks: 3 },
    { name: "with SACK one ACK tells of all", options: "mss 1000,sackOK", acks: 1 },
  ]) {
    drill(t, name, { manual: true }, (d) => {
      d.deliver(tcpPacket(d.family, { seq: d.irs, flags: Flag.S, options: tcpOptions(options) }));
      d.flow.accept();
      d.take();
      d.deliver(tcpPacket(d.family, { seq: d.irs + 1, ack: d.iss + 1, flags: Flag.A }));
      d.take();
      d.takeOut();
      const payload = new Uint8Array(100);
      for (const at of [101, 201, 301]) {
        d.deliver(tcpPacket(d.family, { seq: d.irs + at, ack: d.iss + 1, flags: Flag.A, payload }));
      }
      d.take();
      same(
        d.takeOut().map(({ tcp }) => (tcp?.ack ?? 0) | 0),
        Array.from({ length: acks }, () => (d.irs + 1) | 0),
      );
      d.flow.abort();
      d.take();
      d.takeOut();
    });
  }
});
