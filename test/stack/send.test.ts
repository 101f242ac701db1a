/** Data to the client: segmentation, Nagle, timers, loss recovery, closed windows. Behaviours 41 to 47, 65 to 77. */
import t, { type Test as Tap } from "tap";
import { BLOCK_BYTES } from "../../src/stack/memory/slab.ts";
import {
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
  readonly offload?: KitOptions["offload"];
  /** Options and window of the SYN. */
  readonly syn?: string;
  readonly window?: number;
}

/** Runs rows on an established flow. */
function drills(test: Tap, rows: readonly Row[]): void {
  for (const { name, script, tcp, offload, syn, window } of rows) {
    drill(test, name, { ...(tcp && { tcp }), ...(offload && { offload }) }, (d) => {
      d.establish(syn, window);
      d.run(script);
    });
  }
}

const TSO = { checksum: true, tso: true, uso: true };

/** Segments `from:to` of `size` bytes that the stack must send. */
function segments(from: number, to: number, size: number, push = false): string {
  const lines: string[] = [];
  for (let at = from; at < to; at += size) {
    const end = Math.min(to, at + size);
    lines.push(`> ${push && end === to ? "P." : "."} ${at}:${end}(${end - at}) ack 1`);
  }
  return lines.join("\n");
}

t.test("segmentation (RFC 9293 §3.7, RFC 6928)", async (t) => {
  drills(t, [
    {
      name: "the initial window is ten segments (RFC 6928 §2)",
      script: `write 20000\n${segments(1, 10_001, 1000)}`,
    },
    {
      name: "initialCwnd is an option",
      tcp: { initialCwnd: 2 },
      script: `write 20000\n${segments(1, 2001, 1000)}`,
    },
    {
      name: "each segment acknowledged in slow start lets two out (RFC 5681 §3.1)",
      script: `
        write 30000
        ${segments(1, 10_001, 1000)}
        < . 1:1(0) ack 1001
        ${segments(10_001, 12_001, 1000)}
        < . 1:1(0) ack 3001
        ${segments(12_001, 16_001, 1000)}
      `,
    },
    {
      name: "PSH on the last segment of what is queued (RFC 9293 §3.9.1)",
      script: `write 2500\n${segments(1, 2501, 1000, true)}`,
    },
    {
      name: "the window of the client is never exceeded",
      window: 2500,
      script: `
        write 5000
        ${segments(1, 2001, 1000)}
        < . 1:1(0) ack 1001 win 2500
        > . 2001:3001(1000) ack 1
        < . 1:1(0) ack 2001 win 2500
        > . 3001:4001(1000) ack 1
        < . 1:1(0) ack 4001 win 2500
        > P. 4001:5001(1000) ack 1
      `,
    },
    {
      name: "super-segments where the device cuts them",
      offload: TSO,
      script: `
        write 30500
        > . 1:10001(10000) ack 1 seg 1000
        < . 1:1(0) ack 10001
        > . 10001:30001(20000) ack 1 seg 1000
        < . 1:1(0) ack 30001
        > P. 30001:30501(500) ack 1 seg 0
      `,
    },
    {
      name: "a partial segment ends a super-segment when it is the last",
      offload: TSO,
      script: "write 2500\n> P. 1:2501(2500) ack 1 seg 1000",
    },
    {
      name: "a super-segment has room for the headers within 65,535 bytes",
      offload: TSO,
      tcp: { initialCwnd: 1000 },
      syn: "mss 1000,wscale 7",
      script: `
        write 200000
        > . 1:65001(65000) ack 1 seg 1000
        > . 65001:130001(65000) ack 1 seg 1000
        > . 130001:195001(65000) ack 1 seg 1000
        > P. 195001:200001(5000) ack 1 seg 1000
      `,
    },
    {
      name: "timestamps shorten segments and super-segments alike",
      offload: TSO,
      syn: "mss 1000,TS val 1 ecr 0",
      script: "write 1976\n> P. 1:1977(1976) ack 1 seg 988",
    },
    {
      name: "super-segments stop at the window",
      offload: TSO,
      window: 2500,
      script: "write 9000\n> . 1:2001(2000) ack 1 seg 1000",
    },
  ]);

  drill(
    t,
    "one segment after the SYN-ACK was lost, and an RTO of 3 s (RFC 5681 §3.1, RFC 6298 §5.7)",
    {},
    `
    < S 0:0(0) win 65535 <mss 1000>
    accept
    > S. 0:0(0) ack 1
    +1 > S. 0:0(0) ack 1
    +.1 < . 1:1(0) ack 1
    write 5000
    > . 1:1001(1000) ack 1
    +3 > . 1:1001(1000) ack 1
    < . 1:1(0) ack 1001
    ${segments(1001, 3001, 1000)}
  `,
  );

  drill(t, "what the device needs to cut and to complete stands in the queue", { offload: TSO, manual: true }, (d) => {
    d.deliver(tcpPacket(d.family, { seq: d.irs, flags: Flag.S, options: tcpOptions("mss 1000") }));
    d.flow.accept();
    d.take();
    d.deliver(tcpPacket(d.family, { seq: d.irs + 1, ack: d.iss + 1, flags: Flag.A }));
    d.takeOut();
    d.flow.write(streamBytes(1, 0, 2500));
    const { queue } = d.stack;
    same(d.stack.fill(), 1);
    const ip = d.family === 4 ? 20 : 40;
    same(
      [queue.segmentSize[0], queue.headerLength[0], queue.checksumStart[0], queue.checksumOffset[0]],
      [1000, ip + 20, ip, 16],
    );
    same(queue.packetLength(0), ip + 20 + 2500);
    queue.clear();
  });

  drill(t, "many small writes and many references fill segments all the same", {}, (d) => {
    d.establish();
    for (let i = 0; i < 3000; i++) d.flow.write(streamBytes(1, i, 1));
    d.run(segments(1, 3001, 1000, true));
    d.run("< . 1:1(0) ack 3001");
    // Small references that are not neighbours: behind the first they are copied together.
    const block = d.slab.take();
    for (let i = 0; i < 200; i++) {
      d.slab.bytes.set(streamBytes(1, 3000 + 10 * i, 10), block + 16 * i);
      d.flow.writeReference(block + 16 * i, 10);
    }
    same(d.slab.count(block), 2);
    d.slab.release(block);
    d.drain();
    const sent = d.takeOut().map(({ tcp }) => tcp?.payload ?? new Uint8Array(0));
    same(
      sent.map(({ length }) => length),
      [1000, 1000],
    );
    let at = 3000;
    for (const payload of sent) {
      same(isStream(1, at, payload), true);
      at += payload.length;
    }
  });

  drill(t, "more packets than the queue takes", { tcp: { initialCwnd: 65_535 }, family: 4 }, (d) => {
    d.establish("mss 64,wscale 7");
    d.run("< . 1:1(0) ack 1 win 65535");
    d.flow.write(streamBytes(1, 0, 200_000));
    d.drain();
    const sent = d.takeOut();
    same(sent.length, 200_000 / 64);
    sent.forEach(({ tcp }, i) => {
      if (tcp === undefined || !isStream(1, 64 * i, tcp.payload)) throw new Error(`packet ${i}`);
    });
  });

  t.test("transmit() hands out complete copies", (t) => {
    for (const family of [4, 6] as const) {
      const kit = new Kit({ family, manual: true, iss: 7 });
      t.equal(kit.stack.transmit(), null);
      kit.deliver(tcpPacket(family, { seq: 100, ack: 5, flags: Flag.A }));
      kit.deliver(tcpPacket(family, { sourcePort: 2, seq: 100, flags: Flag.S }));
      kit.flows[0]?.accept();
      const reset = kit.stack.transmit();
      const synAck = kit.stack.transmit();
      t.equal(kit.stack.transmit(), null);
      const header = family === 4 ? 20 : 40;
      t.equal(reset?.[header + 13], Flag.R);
      t.equal(synAck?.[header + 13], Flag.S | Flag.A);
      t.equal(kit.stack.stats().packetsOut, 2);
      kit.finish();
      t.equal(kit.stack.transmit(), null, "nothing after close()");
    }
    t.end();
  });

  for (const mss of [1, 20, 60, 64]) {
    drill(t, `MSS ${mss}: a send of 100 KB is no storm (CVE-2019-11479)`, { family: 4 }, (d) => {
      d.establish(`mss ${mss}`);
      d.flow.write(new Uint8Array(100_000));
      d.drain();
      const sizes = d.takeOut().map(({ tcp }) => tcp?.payload.length);
      same([sizes.length, Math.min(...(sizes as number[]))], [10, 64]);
    });
  }
});

t.test("Nagle and silly windows (RFC 9293 §3.7.4, §3.8.6.2.1)", async (t) => {
  drills(t, [
    {
      name: "without Nagle every write leaves at once (MUST-17)",
      script:
        "write 10\n> P. 1:11(10) ack 1\nwrite 10\n> P. 11:21(10) ack 1\nwrite 1010\n> . 21:1021(1000) ack 1\n> P. 1021:1031(10) ack 1",
    },
    {
      name: "Nagle: a partial segment waits while something is outstanding",
      tcp: { nagle: true },
      script: `
        write 10
        > P. 1:11(10) ack 1
        write 10
        write 10
        < . 1:1(0) ack 11
        > P. 11:31(20) ack 1
        write 1010
        > . 31:1031(1000) ack 1
        < . 1:1(0) ack 31
        < . 1:1(0) ack 1031
        > P. 1031:1041(10) ack 1
      `,
    },
    {
      name: "Nagle: FIN takes the partial segment along",
      tcp: { nagle: true },
      script: "write 10\n> P. 1:11(10) ack 1\nwrite 10\nend\n> FP. 11:21(10) ack 1",
    },
    {
      name: "Nagle: the tail of a super-segment waits too",
      tcp: { nagle: true },
      offload: TSO,
      script: "write 2500\n> . 1:2001(2000) ack 1 seg 1000\n< . 1:1(0) ack 2001\n> P. 2001:2501(500) ack 1",
    },
    {
      name: "a window below half of the largest and below the MSS is left until the timer (SHLD-8)",
      script: `
        < . 1:1(0) ack 1 win 500
        write 1000
        +.2 > P. 1:501(500) ack 1
        < . 1:1(0) ack 501 win 500
        > P. 501:1001(500) ack 1
      `,
    },
    {
      name: "half of the largest window is worth a segment",
      window: 800,
      script:
        "write 2000\n> . 1:801(800) ack 1\n< . 1:1(0) ack 801 win 400\n> . 801:1201(400) ack 1\n< . 1:1(0) ack 1201 win 399",
    },
    {
      name: "the last bytes fit: they go",
      script: "< . 1:1(0) ack 1 win 500\nwrite 500\n> P. 1:501(500) ack 1",
    },
  ]);
});

t.test("the retransmission timer (RFC 6298)", async (t) => {
  const samples: readonly { name: string; rtts: readonly number[]; srtt: number; rttvar: number; rto: number }[] = [
    { name: "first sample", rtts: [100], srtt: 100, rttvar: 50, rto: 300 },
    { name: "second sample", rtts: [100, 100], srtt: 100, rttvar: 37.5, rto: 250 },
    { name: "a late one", rtts: [100, 100, 240], srtt: 117.5, rttvar: 63.125, rto: 370 },
    { name: "floor", rtts: [40], srtt: 40, rttvar: 20, rto: 200 },
    { name: "nothing", rtts: [0], srtt: 0, rttvar: 0, rto: 200 },
    {
      name: "a steady one: the granularity counts",
      rtts: [900, ...new Array(40).fill(900)],
      srtt: 900,
      rttvar: 450 * 0.75 ** 40,
      rto: 904,
    },
  ];
  for (const stamps of [false, true]) {
    for (const { name, rtts, srtt, rttvar, rto } of samples) {
      drill(t, `${name}${stamps ? ", from timestamps" : ""}: SRTT, RTTVAR and RTO (§2)`, {}, (d) => {
        const option = (val: number): string => (stamps ? ` <TS val 1 ecr ${val}>` : "");
        d.run(`< S 0:0(0) win 65535 <mss 1000${stamps ? ",TS val 1 ecr 0" : ""}>\naccept\n> S. 0:0(0) ack 1`);
        let clock = 0;
        rtts.forEach((rtt, i) => {
          if (i > 0) d.run(`write 1\n> P. ${i}:${i + 1}(1) ack 1`);
          d.run(`+${rtt / 1000} < . 1:1(0) ack ${i + 1}${option(clock)}`);
          clock += rtt;
        });
        const info = d.flow.info();
        same([info.srtt, info.rttvar.toFixed(6), info.rto], [srtt, rttvar.toFixed(6), rto]);
      });
    }
  }
  drill(t, "ceiling of 60 s (§2.5)", { tcp: { synAckRetries: 20, initialRtoMs: 60_000 } }, (d) => {
    d.run("< S 0:0(0) win 65535\naccept\n> S. 0:0(0) ack 1\n+30 < . 1:1(0) ack 1");
    same(d.flow.info().rto, 60_000);
  });

  drills(t, [
    {
      name: "it doubles with each expiry and gives up after dataRetries (§5.5, RFC 9293 MUST-20)",
      tcp: { dataRetries: 4 },
      script: `
        write 10
        > P. 1:11(10) ack 1
        +.2 > P. 1:11(10) ack 1
        +.4 > P. 1:11(10) ack 1
        +.8 > P. 1:11(10) ack 1
        +1.6 > P. 1:11(10) ack 1
        +3.1 state ESTABLISHED
        +.2 gone FLOW_TIMEOUT
        ready syn,established,closed
        < . 1:1(0) ack 11
        > R 11:11(0)
      `,
    },
    {
      name: "it never exceeds maxRtoMs (§2.5)",
      tcp: { maxRtoMs: 1000 },
      script: `
        write 10
        > P. 1:11(10) ack 1
        +.2 > P. 1:11(10) ack 1
        +.4 > P. 1:11(10) ack 1
        +.8 > P. 1:11(10) ack 1
        +1 > P. 1:11(10) ack 1
        +1 > P. 1:11(10) ack 1
      `,
    },
    {
      name: "new data acknowledged ends the backoff",
      script: `
        write 20
        > P. 1:21(20) ack 1
        +.2 > P. 1:21(20) ack 1
        +.4 > P. 1:21(20) ack 1
        < . 1:1(0) ack 11
        +.2 > P. 11:21(10) ack 1
        < . 1:1(0) ack 21
        write 10
        > P. 21:31(10) ack 1
        +.2 > P. 21:31(10) ack 1
      `,
    },
    {
      name: "an ACK of new data restarts it (§5.3), everything acknowledged stops it (§5.2)",
      script: `
        write 2000
        > . 1:1001(1000) ack 1
        > P. 1001:2001(1000) ack 1
        +.16 < . 1:1(0) ack 1001
        +.16 < . 1:1(0) ack 1001
        +.04 > P. 1001:2001(1000) ack 1
        < . 1:1(0) ack 2001
        +100 state ESTABLISHED
      `,
    },
    {
      name: "a segment that was sent twice is no sample (Karn, §3)",
      script: `
        write 10
        > P. 1:11(10) ack 1
        +.2 > P. 1:11(10) ack 1
        +.19 < . 1:1(0) ack 11
        write 10
        > P. 11:21(10) ack 1
        +.2 > P. 11:21(10) ack 1
      `,
    },
    {
      name: "after a timeout everything goes again in slow start from one segment (RFC 5681 §3.1)",
      script: `
        write 5000
        ${segments(1, 5001, 1000, true)}
        +.2 > . 1:1001(1000) ack 1
        < . 1:1(0) ack 1001
        ${segments(1001, 3001, 1000)}
        < . 1:1(0) ack 3001
        ${segments(3001, 5001, 1000, true)}
        < . 1:1(0) ack 5001
      `,
    },
    {
      name: "an ACK beyond the segment that went again ends it",
      script: `
        write 5000
        ${segments(1, 5001, 1000, true)}
        +.2 > . 1:1001(1000) ack 1
        < . 1:1(0) ack 4001
        > P. 4001:5001(1000) ack 1
        < . 1:1(0) ack 5001
        +100 state ESTABLISHED
      `,
    },
    {
      name: "an ACK inside of a segment that went again: the rest follows",
      script: `
        write 3000
        ${segments(1, 3001, 1000, true)}
        +.2 > . 1:1001(1000) ack 1
        < . 1:1(0) ack 501
        > . 1001:2001(1000) ack 1
        < . 1:1(0) ack 1501
        > P. 2001:3001(1000) ack 1
      `,
    },
    {
      name: "what is written during a timeout follows in order",
      script: `
        write 1000
        > P. 1:1001(1000) ack 1
        +.2 > P. 1:1001(1000) ack 1
        write 500
        < . 1:1(0) ack 1001
        > P. 1001:1501(500) ack 1
      `,
    },
  ]);

  drill(
    t,
    "255 retransmissions overflow nothing (lwIP)",
    { family: 4, tcp: { dataRetries: 255, maxRtoMs: 1000 } },
    (d) => {
      d.establish();
      d.run("write 10\n> P. 1:11(10) ack 1");
      for (let i = 0; i < 255; i++) {
        d.advance(d.now + 2000, true);
        same(d.takeOut().length, 1);
      }
      d.advance(d.now + 2000);
      d.run("gone FLOW_TIMEOUT");
    },
  );

  drill(t, "cwnd and ssthresh at a timeout (RFC 5681 §3.1)", {}, (d) => {
    d.establish();
    d.run(`write 10000\n${segments(1, 10_001, 1000, true)}\n+.2 > . 1:1001(1000) ack 1`);
    same([d.flow.info().cwnd, d.flow.info().ssthresh], [1000, 5000]);
    // The same segment again: ssthresh stays (RFC 5681 §3.1, equation 4 only the first time).
    d.run("+.4 > . 1:1001(1000) ack 1");
    same([d.flow.info().cwnd, d.flow.info().ssthresh], [1000, 5000]);
    d.run("< . 1:1(0) ack 10001");
    same(d.flow.info().cwnd, 11_000);
    // A single segment lost: never below two (equation 4).
    d.run("write 100\n> P. 10001:10101(100) ack 1\n+.2 > P. 10001:10101(100) ack 1");
    same([d.flow.info().cwnd, d.flow.info().ssthresh], [1000, 2000]);
  });

  drill(t, "congestion avoidance: one segment a window (RFC 5681 §3.1)", {}, (d) => {
    d.establish();
    d.run(`write 4000\n${segments(1, 4001, 1000, true)}\n+.2 > . 1:1001(1000) ack 1\n< . 1:1(0) ack 4001`);
    // ssthresh is 2000, and the ACK has taken cwnd above it.
    same([d.flow.info().ssthresh, d.flow.info().cwnd], [2000, 5000]);
    let at = 4001;
    for (const wanted of [5000, 5000, 5000, 5000, 6000, 6000, 6000, 6000, 6000, 6000, 7000]) {
      d.run(`write 1000\n> P. ${at}:${at + 1000}(1000) ack 1\n< . 1:1(0) ack ${at + 1000}`);
      at += 1000;
      same(d.flow.info().cwnd, wanted);
    }
  });
});

t.test("fast retransmit and fast recovery (RFC 5681 §3.2, RFC 6582)", async (t) => {
  const TEN = `write 10000\n${segments(1, 10_001, 1000, true)}`;
  const DUP = "< . 1:1(0) ack 1\n";
  drills(t, [
    {
      name: "on the third duplicate ACK",
      script: `${TEN}\n${DUP}${DUP}+.01 ${DUP}> P. 1:1001(1000) ack 1\n< . 1:1(0) ack 10001\n+100 state ESTABLISHED`,
    },
    {
      name: "two duplicates let a segment out each (RFC 3042), further ones inflate cwnd and let new data out",
      script: `
        write 20000
        ${segments(1, 10_001, 1000)}
        ${DUP}
        > . 10001:11001(1000) ack 1
        ${DUP}
        > . 11001:12001(1000) ack 1
        ${DUP}
        > P. 1:1001(1000) ack 1
        ${DUP}${DUP}${DUP}${DUP}${DUP}
        > . 12001:13001(1000) ack 1
        ${DUP}
        > . 13001:14001(1000) ack 1
        < . 1:1(0) ack 14001
        ${segments(14_001, 16_001, 1000)}
      `,
    },
    {
      name: "a partial ACK retransmits the next hole at once (RFC 6582 §3.2)",
      script: `
        ${TEN}
        ${DUP}${DUP}${DUP}
        > P. 1:1001(1000) ack 1
        < . 1:1(0) ack 2001
        > P. 2001:3001(1000) ack 1
        < . 1:1(0) ack 5001
        > P. 5001:6001(1000) ack 1
        < . 1:1(0) ack 10001
      `,
    },
    {
      name: "duplicates of the old window after recovery start nothing (RFC 6582 §3.2)",
      script: `
        ${TEN}
        ${DUP}${DUP}${DUP}
        > P. 1:1001(1000) ack 1
        < . 1:1(0) ack 10001
        write 1000
        > P. 10001:11001(1000) ack 1
        < . 1:1(0) ack 10001
        < . 1:1(0) ack 10001
        < . 1:1(0) ack 10001
        < . 1:1(0) ack 10001
        < . 1:1(0) ack 11001
      `,
    },
    {
      name: "duplicates after a timeout start nothing (RFC 6582 §4)",
      script: `${TEN}\n+.2 > . 1:1001(1000) ack 1\n${DUP}${DUP}${DUP}${DUP}< . 1:1(0) ack 10001`,
    },
    {
      name: "a loss after recovery is recovered again",
      script: `
        ${TEN}
        ${DUP}${DUP}${DUP}
        > P. 1:1001(1000) ack 1
        < . 1:1(0) ack 10001
        write 6000
        ${segments(10_001, 12_001, 1000)}
        < . 1:1(0) ack 11001
        ${segments(12_001, 14_001, 1000)}
        < . 1:1(0) ack 12001
        ${segments(14_001, 16_001, 1000, true)}
        < . 1:1(0) ack 12001
        < . 1:1(0) ack 12001
        < . 1:1(0) ack 12001
        > P. 12001:13001(1000) ack 1
        < . 1:1(0) ack 16001
      `,
    },
    {
      name: "an ACK with data, with FIN or with another window is no duplicate (RFC 5681 §2)",
      script: `
        ${TEN}
        ${DUP}${DUP}
        < . 1:1(0) ack 1 win 65000
        < . 1:1(0) ack 1 win 64000
        < P. 1:11(10) ack 1 win 64000
        +.02 > . 10001:10001(0) ack 11
        < P. 11:21(10) ack 1 win 64000
        +.02 > . 10001:10001(0) ack 21
        < F. 21:21(0) ack 1 win 64000
        > . 10001:10001(0) ack 22
        < . 22:22(0) ack 1 win 64000
        > P. 1:1001(1000) ack 22
        read 20
      `,
    },
    {
      name: "nothing outstanding: no duplicate",
      script: `${DUP}${DUP}${DUP}${DUP}write 10\n> P. 1:11(10) ack 1`,
    },
  ]);

  for (const { name, script } of [
    {
      name: "duplicates with SACK blocks count whatever their window says (RFC 6675 §2)",
      script: `
        ${TEN}
        < . 1:1(0) ack 1 win 64000 <sack 1001:2001>
        < . 1:1(0) ack 1 win 63000 <sack 1001:3001>
        < . 1:1(0) ack 1 win 62000 <sack 1001:3501>
        > P. 1:1001(1000) ack 1
      `,
    },
    {
      name: "one ACK for a super-segment beyond the gap is enough (RFC 6675 §4)",
      script: `${TEN}\n< . 1:1(0) ack 1 win 64000 <sack 1001:5001>\n> P. 1:1001(1000) ack 1`,
    },
    {
      name: "D-SACK is no sign of a loss (RFC 2883)",
      script: `
        ${TEN}
        < . 1:1(0) ack 5001
        < . 1:1(0) ack 5001 win 64000 <sack 1:3001>
        < . 1:1(0) ack 5001 win 63000 <sack 1:4001>
        < . 1:1(0) ack 5001 win 62000 <sack 1:5001>
        < . 1:1(0) ack 10001
      `,
    },
    {
      name: "a loss right behind a recovery is told by SACK from old duplicates (RFC 6582 §4.1)",
      script: `
        ${TEN}
        ${DUP}${DUP}${DUP}
        > P. 1:1001(1000) ack 1
        < . 1:1(0) ack 10001
        write 4000
        ${segments(10_001, 12_001, 1000)}
        < . 1:1(0) ack 10001 <sack 11001:12001>
        > . 12001:13001(1000) ack 1
        < . 1:1(0) ack 10001 <sack 11001:12001>
        > P. 13001:14001(1000) ack 1
        < . 1:1(0) ack 10001 <sack 11001:12001>
        > P. 10001:11001(1000) ack 1
      `,
    },
  ]) {
    drill(t, name, {}, (d) => {
      d.establish("mss 1000,sackOK");
      d.run(script);
    });
  }

  drill(t, "cwnd through recovery (RFC 5681 §3.2)", {}, (d) => {
    d.establish();
    d.run(`${TEN}\n${DUP}${DUP}${DUP}> P. 1:1001(1000) ack 1`);
    same([d.flow.info().ssthresh, d.flow.info().cwnd], [5000, 8000]);
    d.run(DUP);
    same(d.flow.info().cwnd, 9000);
    d.run("< . 1:1(0) ack 3001\n> P. 3001:4001(1000) ack 1");
    same(d.flow.info().cwnd, 9000 - 3000 + 1000);
    d.run("< . 1:1(0) ack 10001");
    same([d.flow.info().ssthresh, d.flow.info().cwnd], [5000, 2000]);
  });

  drill(t, "100,000 duplicate ACKs: bounded packets and numbers (smoltcp 224)", { family: 4 }, (d) => {
    d.establish();
    d.run(`write 20000\n${segments(1, 10_001, 1000)}`);
    for (let i = 0; i < 100_000; i++) d.deliver(tcpPacket(4, { seq: d.irs + 1, ack: d.iss + 1, flags: Flag.A }));
    same(d.takeOut().length, 11);
    same(d.flow.info().cwnd <= 1 << 30, true);
    d.run("< . 1:1(0) ack 20001");
    same(d.flow.info().cwnd, 2000);
  });

  drill(t, "10,000 ACKs with SACK blocks of one byte (CVE-2019-11477, 11478)", { family: 4 }, (d) => {
    d.establish("mss 64,sackOK");
    d.flow.write(new Uint8Array(100_000));
    d.drain();
    d.takeOut();
    for (let i = 0; i < 10_000; i++) {
      const options = tcpOptions(
        `sack ${[0, 1, 2, 3].map((k) => `${i + 3 * k}:${i + 3 * k + 1}`).join(" ")}`,
        d.iss + 1,
      );
      d.deliver(tcpPacket(4, { seq: d.irs + 1, ack: d.iss + 1, flags: Flag.A, options }));
    }
    if (d.takeOut().length > 2000) throw new Error("a storm of packets");
    d.advance(d.now + 1000);
    d.takeOut();
  });

  drill(
    t,
    "split ACKs gain no more than their bytes; ACKs beyond SND.NXT gain nothing (RFC 3465, RFC 5961)",
    {},
    (d) => {
      d.establish();
      d.flow.write(streamBytes(1, 0, 10_000));
      d.drain();
      d.takeOut();
      for (let i = 1; i <= 1000; i++) {
        d.deliver(tcpPacket(d.family, { seq: d.irs + 1, ack: d.iss + 1 + i, flags: Flag.A }));
      }
      same(d.flow.info().cwnd, 11_000);
      d.takeOut();
      for (let i = 0; i < 20; i++) {
        d.deliver(tcpPacket(d.family, { seq: d.irs + 1, ack: d.iss + 10_002 + i, flags: Flag.A }));
      }
      same(d.flow.info().cwnd, 11_000);
      same(d.flow.info().unacknowledged, 9000);
      same(d.takeOut().length, 10);
    },
  );
});

t.test("windows that close (RFC 9293 §3.8.6.1)", async (t) => {
  const PROBE = "> P. 1:2(1) ack 1";
  const CLOSED = "< . 1:1(0) ack 1 win 0";
  drills(t, [
    {
      name: "probes from the RTO on with backoff, then all that waits when it opens (MUST-36, SHLD-29, 30)",
      script: `
        ${CLOSED}
        write 10
        +.2 ${PROBE}
        +.01 ${CLOSED}
        +.39 ${PROBE}
        ${CLOSED}
        +.8 ${PROBE}
        ${CLOSED}
        +1.6 ${PROBE}
        +.1 < . 1:1(0) ack 1 win 65535
        > P. 1:11(10) ack 1
        < . 1:1(0) ack 11
        +100 state ESTABLISHED
      `,
    },
    {
      name: "the byte of a probe is taken, the window stays closed",
      script: `
        ${CLOSED}
        write 10
        +.2 ${PROBE}
        < . 1:1(0) ack 2 win 0
        +.2 > P. 2:3(1) ack 1
        < . 1:1(0) ack 3 win 65535
        > P. 3:11(8) ack 1
      `,
    },
    {
      name: "the byte of a probe was lost: it goes with the rest when the window opens",
      script: `
        ${CLOSED}
        write 1500
        +.2 > P. 1:2(1) ack 1
        < . 1:1(0) ack 1 win 65535
        > . 1:1001(1000) ack 1
        > P. 1001:1501(500) ack 1
      `,
    },
    {
      name: "a client that does not answer is given up (RFC 1122 §4.2.2.17)",
      tcp: { dataRetries: 3 },
      script: `
        ${CLOSED}
        write 10
        +.2 ${PROBE}
        +.4 ${PROBE}
        +.8 ${PROBE}
        +1.5 state ESTABLISHED
        +.2 gone FLOW_TIMEOUT
      `,
    },
    {
      name: "it closes behind data that is acknowledged",
      window: 1000,
      script: `
        write 1010
        > . 1:1001(1000) ack 1
        < . 1:1(0) ack 1001 win 0
        +.2 > P. 1001:1002(1) ack 1
        < . 1:1(0) ack 1002 win 1000
        > P. 1002:1011(9) ack 1
      `,
    },
    {
      name: "it closes over bytes in flight (MUST-34): 64K, 0, 1, 64K (smoltcp 489)",
      script: `
        write 5000
        ${segments(1, 5001, 1000, true)}
        ${CLOSED}
        +.2 ${PROBE}
        ${CLOSED}
        +.4 ${PROBE}
        < . 1:1(0) ack 1 win 1
        > . 1:2(1) ack 1
        < . 1:1(0) ack 2 win 65535
        > . 2:1002(1000) ack 1
        > . 1002:2002(1000) ack 1
        > . 2002:3002(1000) ack 1
        > . 3002:4002(1000) ack 1
        > P. 4002:5001(999) ack 1
        < . 1:1(0) ack 5001
      `,
    },
    {
      name: "it shrinks below a segment in flight (MUST-34)",
      script: `
        write 1000
        > P. 1:1001(1000) ack 1
        < . 1:1(0) ack 1 win 100
        +.2 > . 1:101(100) ack 1
        < . 1:1(0) ack 101 win 100
        > . 101:201(100) ack 1
        < . 1:1(0) ack 201 win 65535
        > P. 201:1001(800) ack 1
      `,
    },
    {
      name: "an ACK of everything sent while it is closed",
      script: `
        write 3000
        ${segments(1, 3001, 1000, true)}
        < . 1:1(0) ack 1001 win 0
        +.2 > P. 1001:1002(1) ack 1
        < . 1:1(0) ack 3001 win 0
        write 10
        +.2 > P. 3001:3002(1) ack 1
        < . 1:1(0) ack 3002 win 10
        > P. 3002:3011(9) ack 1
      `,
    },
    {
      name: "data from the client and ACKs of old windows open nothing (SND.WL1, SND.WL2)",
      script: `
        < P. 1:11(10) ack 1 win 0
        +.02 > . 1:1(0) ack 11
        write 10
        < . 1:1(0) ack 1 win 65535
        > . 1:1(0) ack 11
        +.2 > P. 1:2(1) ack 11
        < . 11:11(0) ack 1 win 65535
        > P. 1:11(10) ack 11
        read 10
      `,
    },
    {
      name: "FIN goes with the last byte that waited",
      script: `${CLOSED}\nwrite 10\nend\n+.2 ${PROBE}\n< . 1:1(0) ack 2 win 65535\n> FP. 2:11(9) ack 1\nstate FIN-WAIT-1`,
    },
    {
      name: "ACK and data of ours carry on while the client's window is closed",
      script: `${CLOSED}\nwrite 10\n< P. 1:1001(1000) ack 1 win 0\n+.02 > . 1:1(0) ack 1001\nread 1000`,
    },
  ]);

  drill(t, "for ever while the client answers, at most 60 s apart (MUST-37)", {}, (d) => {
    d.establish();
    d.run(`${CLOSED}\nwrite 10`);
    let longest = 0;
    for (let i = 0; i < 100; i++) {
      const before = d.now;
      d.advance(d.now + 100_000, true);
      same(d.takeOut().length, 1);
      longest = Math.max(longest, d.now - before);
      d.run(CLOSED);
    }
    same([d.flow.state, Math.round(longest / 1000)], ["ESTABLISHED", 60]);
    d.run("< . 1:1(0) ack 1 win 65535\n> P. 1:11(10) ack 1");
  });

  drill(t, "for ever too when it closed over bytes in flight", {}, (d) => {
    d.establish();
    d.run(`write 5000\n${segments(1, 5001, 1000, true)}\n${CLOSED}`);
    for (let i = 0; i < 100; i++) {
      d.advance(d.now + 100_000, true);
      same(d.takeOut().length, 1);
      d.run(CLOSED);
    }
    same(d.flow.state, "ESTABLISHED");
  });

  drill(t, "for ever too for a FIN that the client does not take", {}, (d) => {
    d.establish();
    d.run(`${CLOSED}\nend\n> F. 1:1(0) ack 1`);
    for (let i = 0; i < 100; i++) {
      d.advance(d.now + 100_000, true);
      same(d.takeOut().length, 1);
      d.run(CLOSED);
    }
    same(d.flow.state, "FIN-WAIT-1");
    d.run("< . 1:1(0) ack 2 win 0\nstate FIN-WAIT-2");
  });

  drill(t, "a new window after the closed one starts from the backoff's beginning", {}, (d) => {
    d.establish();
    d.run(`${CLOSED}\nwrite 10\n+.2 ${PROBE}\n+.4 ${PROBE}\n+.8 ${PROBE}`);
    d.run("< . 1:1(0) ack 1 win 65535\n> P. 1:11(10) ack 1\n+.2 > P. 1:11(10) ack 1");
  });
});

t.test("the send buffer", async (t) => {
  drill(t, "it bounds what write() takes, and tells when half of it is free", { tcp: { sendBuffer: 4000 } }, (d) => {
    d.establish();
    d.takeReady();
    same([d.flow.sendSpace, d.flow.write(streamBytes(1, 0, 5000))], [4000, 4000]);
    same([d.flow.sendSpace, d.flow.sendQueued, d.flow.write(streamBytes(1, 4000, 1))], [0, 4000, 0]);
    d.run(`${segments(1, 4001, 1000, true)}\n< . 1:1(0) ack 1001\nready -\n< . 1:1(0) ack 2001\nready writable`);
    d.run("< . 1:1(0) ack 3001\nready -");
    d.flow.wantWritable();
    d.drain();
    d.run("ready writable");
    same(d.flow.write(streamBytes(1, 4000, 3000)), 3000);
    d.flow.wantWritable();
    d.run(`${segments(4001, 7001, 1000, true)}\nready -\n< . 1:1(0) ack 6001\nready writable`);
  });

  drill(t, "a large write and one of nothing", { family: 4 }, (d) => {
    d.establish("mss 1000,wscale 7");
    same(d.flow.write(new Uint8Array(0)), 0);
    same(d.flow.write(streamBytes(1, 0, BLOCK_BYTES + 1000)), BLOCK_BYTES + 1000);
    d.drain();
    let at = 0;
    for (let i = 0; i < 10_000 && at < BLOCK_BYTES + 1000; i++) {
      for (const { tcp } of d.takeOut()) {
        if (tcp === undefined || !isStream(1, at, tcp.payload)) throw new Error(`differs at ${at}`);
        at += tcp.payload.length;
      }
      d.deliver(tcpPacket(4, { seq: d.irs + 1, ack: d.iss + 1 + at, flags: Flag.A }));
    }
    same(at, BLOCK_BYTES + 1000);
    d.takeOut();
  });

  drill(t, "write after end() throws; after the end of the flow it takes nothing", {}, (d) => {
    d.establish();
    d.flow.end();
    let message = "";
    try {
      d.flow.write(new Uint8Array(1));
    } catch (error) {
      message = String(error);
    }
    same([message, d.flow.writeReference(0, 1)], ["Error: write() after end()", false]);
    d.run("> F. 1:1(0) ack 1");
    d.use(50_000);
    d.establish();
    d.run("< R 1:1(0)\ngone FLOW_RESET");
    same([d.flow.write(new Uint8Array(1)), d.flow.writeReference(0, 1)], [0, false]);
    d.flow.end();
    d.flow.close();
    d.flow.abort();
  });

  drill(t, "blocks of what was written stay held until it is acknowledged", {}, (d) => {
    d.establish();
    const block = d.slab.take();
    d.slab.bytes.set(streamBytes(1, 0, 2000), block);
    d.flow.writeReference(block, 2000);
    d.slab.release(block);
    d.run(segments(1, 2001, 1000, true));
    same(d.slab.count(block), 1);
    d.run("< . 1:1(0) ack 1001");
    same(d.slab.count(block), 1);
    d.run("< . 1:1(0) ack 2001");
    same(d.slab.count(block), 0);
  });

  drill(t, "small writes that wait for long are copied out of big blocks", {}, (d) => {
    d.establish();
    const block = d.slab.take();
    d.slab.bytes.set(streamBytes(1, 0, 20), block);
    d.flow.writeReference(block, 20);
    d.slab.release(block);
    d.run("> P. 1:21(20) ack 1\n+.2 > P. 1:21(20) ack 1");
    same(d.slab.count(block), 0);
    d.run("+.4 > P. 1:21(20) ack 1\n< . 1:1(0) ack 21");
  });

  drill(t, "info() counts what is sent and what is not", { tcp: { initialCwnd: 2 } }, (d) => {
    d.establish();
    d.run(`write 5000\n${segments(1, 2001, 1000)}`);
    const { unacknowledged, unsent, mss, state, sndWnd, rcvWnd } = d.flow.info();
    same([unacknowledged, unsent, mss, state, sndWnd, rcvWnd], [2000, 3000, 1000, "ESTABLISHED", 65_535, 65_535]);
    same(showReady(d.takeReady()), "syn,established");
  });
});
