/** CLOSED and LISTEN, deferred accept, the handshake and its options, what bounds them. Behaviours 1 to 16, 21 to 23. */
import t from "tap";
import { Stack } from "../../src/stack/stack.ts";
import {
  CLIENT,
  Drill,
  drill,
  type Family,
  Flag,
  Kit,
  SERVER,
  same,
  seededRandom,
  showReady,
  tcpOptions,
  tcpPacket,
} from "./kit.ts";

t.test("deferred accept and refusal", async (t) => {
  const rows: readonly { name: string; script: string }[] = [
    {
      name: "SYN to any address becomes a flow, answered only after accept (RFC 9293 §3.10.7.2)",
      script: `
        < S 0:0(0) win 65535 <mss 1000>
        state LISTEN
        ready syn
        +5 accept
        > S. 0:0(0) ack 1
        state SYN-RECEIVED
        < . 1:1(0) ack 1
        state ESTABLISHED
        ready established
      `,
    },
    {
      name: "copies of the SYN join the pending flow, TSecr comes from the first (DESIGN §4)",
      script: `
        < S 0:0(0) win 65535 <mss 1000,TS val 7 ecr 0>
        +1 < S 0:0(0) win 65535 <mss 1000,TS val 1007 ecr 0>
        +2 < S 0:0(0) win 65535 <mss 1000,TS val 3007 ecr 0>
        accept
        > S. 0:0(0) ack 1 <mss MSS,TS val 0 ecr 7>
        ready syn
      `,
    },
    {
      name: "RST before accept ends the flow (RFC 9293 §3.10.7.3)",
      script: `
        < S 0:0(0) win 65535
        +.1 < R 1:1(0)
        gone FLOW_RESET
        ready syn,closed
        accept
      `,
    },
    {
      name: "RST with the number of the SYN itself before accept ends the flow",
      script: `
        < S 0:0(0) win 65535
        < R 0:0(0)
        gone FLOW_RESET
      `,
    },
    {
      name: "RST elsewhere before accept is ignored (RFC 5961 §3.2)",
      script: `
        < S 0:0(0) win 65535
        < R 2:2(0)
        < R -1:-1(0)
        < R. 5000:5000(0) ack 1
        state LISTEN
        drops tcpUnacceptable 3
      `,
    },
    {
      name: "a SYN with another number before accept is a new flow; the first one is over",
      script: `
        < S 0:0(0) win 65535
        < S 100:100(0) win 65535
        ready syn
        accept
        > S. 0:0(0) ack 101
        < . 101:101(0) ack 1
        state ESTABLISHED
      `,
    },
    {
      name: "ACK before accept is reset, the flow stays (RFC 9293 §3.10.7.2, second step)",
      script: `
        < S 0:0(0) win 65535
        < . 1:1(0) ack 77
        > R 77:77(0)
        state LISTEN
      `,
    },
    {
      name: "data and FIN without ACK before accept are dropped (RFC 9293 §3.10.7.2, fourth step)",
      script: `
        < S 0:0(0) win 65535
        < P 1:11(10)
        < F 1:1(0)
        < - 1:1(0)
        state LISTEN
      `,
    },
    {
      name: "a SYN with FIN before accept changes nothing (RFC 3360)",
      script: `
        < S 0:0(0) win 65535
        < SF 0:0(0)
        < SF 9:9(0)
        state LISTEN
        drops tcpFlags 2
      `,
    },
    {
      name: "reject rst: the SYN is acknowledged and reset (RFC 9293 §3.10.7.1)",
      script: `
        < S 0:0(0) win 65535
        reject rst
        > R. 0:0(0) ack 1 win 0
        gone FLOW_ABORTED
      `,
    },
    {
      name: "abort before accept is a refusal too",
      script: `
        < S 0:0(0) win 65535
        abort
        > R. 0:0(0) ack 1
        gone FLOW_ABORTED
      `,
    },
    {
      name: "close before accept is a refusal too",
      script: `
        < S 0:0(0) win 65535
        close
        > R. 0:0(0) ack 1
        gone FLOW_ABORTED
      `,
    },
    {
      name: "reject drop: silence, and the next SYN is a new flow",
      script: `
        < S 0:0(0) win 65535
        reject drop
        gone FLOW_ABORTED
        +1 < S 0:0(0) win 65535
        state LISTEN
        ready syn
      `,
    },
    {
      name: "reject after accept has no effect",
      script: `
        < S 0:0(0) win 65535
        accept
        > S. 0:0(0) ack 1
        reject rst
        state SYN-RECEIVED
        < P. 1:11(10) ack 1
        state ESTABLISHED
        read 10
        +.02 > . 1:1(0) ack 11
      `,
    },
    {
      name: "what is written before accept and before the ACK leaves after it",
      script: `
        < S 0:0(0) win 65535 <mss 1000>
        write 10
        accept
        > S. 0:0(0) ack 1
        write 5
        < . 1:1(0) ack 1
        > P. 1:16(15) ack 1
        < . 1:1(0) ack 16
      `,
    },
  ];
  for (const { name, script } of rows) {
    drill(t, name, {}, (d) => d.run(script.replaceAll("MSS", String(d.mss))));
  }
});

t.test("segments without a flow (RFC 9293 §3.10.7.1)", async (t) => {
  const rows: readonly { name: string; script: string }[] = [
    { name: "ACK: <SEQ=SEG.ACK><RST>", script: "< . 5:5(0) ack 77\n> R =77:77(0)" },
    { name: "ACK with data: <SEQ=SEG.ACK><RST>", script: "< P. 5:15(10) ack -3\n> R =-3:-3(0)" },
    { name: "SYN-ACK: <SEQ=SEG.ACK><RST>", script: "< S. 5:5(0) ack 77\n> R =77:77(0)" },
    { name: "FIN-ACK: <SEQ=SEG.ACK><RST>", script: "< F. 5:5(0) ack 0\n> R =0:0(0)" },
    { name: "FIN alone: FIN is counted", script: "< F 5:5(0)\n> R. =0:0(0) ack 6" },
    { name: "null: nothing is counted", script: "< - 5:5(0)\n> R. =0:0(0) ack 5" },
    { name: "data without ACK is counted", script: "< P 5:15(10)\n> R. =0:0(0) ack 15" },
    { name: "FIN with data and without ACK: both are counted", script: "< FP 5:15(10)\n> R. =0:0(0) ack 16" },
    { name: "xmas (FIN, URG, PSH): no flow", script: "< FPU 5:5(0)\n> R. =0:0(0) ack 6" },
    { name: "RST: silence", script: "< R 5:5(0)\ndrops tcpNoFlow 1" },
    { name: "RST-ACK: silence", script: "< R. 5:5(0) ack 77\ndrops tcpNoFlow 1" },
    { name: "RST with everything: silence", script: "< SFRPUEW. 5:5(0) ack 77" },
    { name: "SYN with RST: silence (RFC 3360)", script: "< SR 5:5(0)" },
    { name: "SYN with FIN: dropped, never a flow (RFC 3360)", script: "< SF 5:5(0)\ndrops tcpFlags 1" },
  ];
  for (const { name, script } of rows) {
    drill(t, name, {}, (d) => {
      d.run(script);
      if (d.flows.length > 0) throw new Error("a flow was announced");
    });
  }
});

t.test("ICMP refusals quote what the client's kernel looks at", async (t) => {
  const rows = [
    { reason: "net-unreachable", v4: [3, 0], v6: [1, 0] },
    { reason: "host-unreachable", v4: [3, 1], v6: [1, 3] },
    { reason: "prohibited", v4: [3, 13], v6: [1, 1] },
  ] as const;
  for (const { reason, v4, v6 } of rows) {
    drill(t, `reject ${reason}: type, code and quote (RFC 1122 §3.2.2.1, RFC 4443 §3.1)`, {}, (d) => {
      d.run(`< S 0:0(0) win 1000 <mss 1000,sackOK>\nstate LISTEN`);
      d.flow.reject(reason);
      d.drain();
      const [packet, ...more] = d.takeOut();
      if (packet?.icmp === undefined || more.length > 0) throw new Error("expected one ICMP message");
      const { icmp } = packet;
      const [type, code] = d.family === 4 ? v4 : v6;
      same([icmp.type, icmp.code, icmp.rest], [type, code, 0]);
      // The error comes from where the client wanted to go.
      same([...packet.source], [...SERVER[d.family]]);
      same([...packet.destination], [...CLIENT[d.family]]);
      const quote = icmp.data;
      const view = new DataView(quote.buffer, quote.byteOffset, quote.length);
      const header = d.family === 4 ? 20 : 40;
      same(view.getUint8(d.family === 4 ? 9 : 6), 6);
      same([...quote.slice(d.family === 4 ? 12 : 8, header)], [...CLIENT[d.family], ...SERVER[d.family]]);
      same([view.getUint16(header), view.getUint16(header + 2)], [40_000, 443]);
      same(view.getInt32(header + 4), d.irs | 0);
      same(d.flow.state, "CLOSED");
    });
  }

  t.test("the rate limit of ICMP errors is a token bucket; without a token it is a RST (RFC 4443 §2.4 f)", (t) => {
    const kit = new Kit();
    let icmp = 0;
    let resets = 0;
    const burst = (count: number): void => {
      for (let i = 0; i < count; i++) {
        kit.deliver(tcpPacket(4, { sourcePort: 1024 + i, seq: i, flags: Flag.S }));
        kit.flows.at(-1)?.reject("host-unreachable");
        kit.drain();
        for (const packet of kit.takeOut()) packet.icmp === undefined ? resets++ : icmp++;
      }
    };
    // An error costs one token on average: see icmp-errors.test.ts.
    const about = (wanted: number): boolean => Math.abs(icmp - wanted) < 40;
    burst(700);
    t.ok(about(500) && icmp + resets === 700, `the burst: ${icmp} errors`);
    kit.advance(kit.now + 200);
    burst(200);
    t.ok(about(600) && icmp + resets === 900, `200 ms later: ${icmp} errors`);
    kit.advance(kit.now + 10_000);
    burst(600);
    t.ok(about(1100) && icmp + resets === 1500, `the bucket does not overflow: ${icmp} errors`);
    kit.finish();
    t.end();
  });
});

t.test("what never becomes a flow and is never answered (RFC 1122 §3.2.1.3, RFC 6890, RFC 4291)", async (t) => {
  const v4 = (...bytes: number[]): Uint8Array => Uint8Array.from(bytes);
  const v6 = (text: string): Uint8Array =>
    Uint8Array.from(text.split(":").flatMap((group) => [Number.parseInt(group, 16) >>> 8, Number.parseInt(group, 16)]));
  const rows: readonly { name: string; family: Family; source?: Uint8Array; destination?: Uint8Array; drop: string }[] =
    [
      { name: "land", family: 4, source: SERVER[4], drop: "ipMartianSource" },
      { name: "land", family: 6, source: SERVER[6], drop: "ipMartianSource" },
      { name: "source 0.0.0.0", family: 4, source: v4(0, 0, 0, 0), drop: "ipMartianSource" },
      { name: "source 127.0.0.1", family: 4, source: v4(127, 0, 0, 1), drop: "ipMartianSource" },
      { name: "source 224.0.0.1", family: 4, source: v4(224, 0, 0, 1), drop: "ipMartianSource" },
      { name: "source 240.0.0.1", family: 4, source: v4(240, 0, 0, 1), drop: "ipMartianSource" },
      { name: "source 255.255.255.255", family: 4, source: v4(255, 255, 255, 255), drop: "ipMartianSource" },
      { name: "destination 0.0.0.0", family: 4, destination: v4(0, 0, 0, 0), drop: "ipDestination" },
      { name: "destination 127.0.0.1", family: 4, destination: v4(127, 0, 0, 1), drop: "ipDestination" },
      { name: "destination 224.0.0.1", family: 4, destination: v4(224, 0, 0, 1), drop: "ipDestination" },
      { name: "destination 255.255.255.255", family: 4, destination: v4(255, 255, 255, 255), drop: "ipDestination" },
      { name: "source ::", family: 6, source: v6("0:0:0:0:0:0:0:0"), drop: "ipMartianSource" },
      { name: "source ::1", family: 6, source: v6("0:0:0:0:0:0:0:1"), drop: "ipMartianSource" },
      { name: "source ::ffff:10.0.0.2", family: 6, source: v6("0:0:0:0:0:ffff:a00:2"), drop: "ipMartianSource" },
      { name: "source ff02::1", family: 6, source: v6("ff02:0:0:0:0:0:0:1"), drop: "ipMartianSource" },
      { name: "destination ::", family: 6, destination: v6("0:0:0:0:0:0:0:0"), drop: "ipDestination" },
      { name: "destination ::1", family: 6, destination: v6("0:0:0:0:0:0:0:1"), drop: "ipDestination" },
      {
        name: "destination ::ffff:1.2.3.4",
        family: 6,
        destination: v6("0:0:0:0:0:ffff:102:304"),
        drop: "ipDestination",
      },
      { name: "destination ff02::1", family: 6, destination: v6("ff02:0:0:0:0:0:0:1"), drop: "ipDestination" },
    ];
  for (const { name, family, source, destination, drop } of rows) {
    t.test(`IPv${family} ${name}`, (t) => {
      const kit = new Kit({ family });
      const ip = { ...(source && { source }), ...(destination && { destination }) };
      const flagSets = [Flag.S, Flag.A, Flag.F, 0, Flag.R];
      for (const flags of flagSets) t.equal(kit.deliver(tcpPacket(family, { seq: 1, flags }, ip)), false);
      t.equal(kit.out.length, 0);
      t.equal(kit.flows.length, 0);
      t.same(kit.stack.stats().drops, { [drop]: flagSets.length });
      kit.finish();
      t.end();
    });
  }

  t.test("port 0 at either end is dropped", (t) => {
    for (const family of [4, 6] as const) {
      const kit = new Kit({ family });
      kit.deliver(tcpPacket(family, { sourcePort: 0, seq: 1, flags: Flag.S }));
      kit.deliver(tcpPacket(family, { destinationPort: 0, seq: 1, flags: Flag.S }));
      kit.deliver(tcpPacket(family, { destinationPort: 0, seq: 1, flags: Flag.A }));
      t.same(kit.stack.stats().drops, { tcpPort: 3 });
      t.equal(kit.out.length + kit.flows.length, 0);
      kit.finish();
    }
    t.end();
  });

  t.test("a wrong checksum is dropped, unless the device has checked it (RFC 9293 MUST-3)", (t) => {
    for (const family of [4, 6] as const) {
      const kit = new Kit({ family });
      kit.deliver(tcpPacket(family, { seq: 1, flags: Flag.S, checksum: 0x1234 }));
      t.same(kit.stack.stats().drops, { tcpChecksum: 1 });
      t.equal(kit.flows.length, 0);
      kit.deliverReference(tcpPacket(family, { seq: 1, flags: Flag.S, checksum: 0x1234 }), 0);
      t.equal(kit.flows.length, 1);
      kit.finish();
    }
    t.end();
  });
});

t.test("SYN-RECEIVED", async (t) => {
  const rows: readonly { name: string; script: string; tcp?: object }[] = [
    {
      name: "SYN-ACK is sent again with backoff, bounded, then the flow is forgotten in silence (RFC 6298 §2, RFC 1122)",
      tcp: { synAckRetries: 3 },
      script: `
        < S 0:0(0) win 65535
        accept
        > S. 0:0(0) ack 1
        +1 > S. 0:0(0) ack 1
        +2 > S. 0:0(0) ack 1
        +4 > S. 0:0(0) ack 1
        +7.9 state SYN-RECEIVED
        +.2 gone FLOW_TIMEOUT
        ready syn,closed
        < . 1:1(0) ack 1
        > R =ISS1:ISS1(0)
      `,
    },
    {
      name: "a copy of the SYN is answered with the SYN-ACK again (RFC 9293 §3.10.7.4)",
      script: `
        < S 0:0(0) win 65535
        accept
        > S. 0:0(0) ack 1
        +.1 < S 0:0(0) win 65535
        > S. 0:0(0) ack 1
        < . 1:1(0) ack 1
        state ESTABLISHED
      `,
    },
    {
      name: "a SYN with another number is challenged and does not take the flow over (RFC 5961 §4.2)",
      script: `
        < S 0:0(0) win 65535
        accept
        > S. 0:0(0) ack 1
        < S 7:7(0) win 65535
        > . 1:1(0) ack 1
        < S -7:-7(0) win 65535
        > . 1:1(0) ack 1
        state SYN-RECEIVED
        < . 1:1(0) ack 1
        state ESTABLISHED
      `,
    },
    {
      name: "an unacceptable ACK is reset and the flow kept (RFC 9293 §3.10.7.4)",
      script: `
        < S 0:0(0) win 65535
        accept
        > S. 0:0(0) ack 1
        < . 1:1(0) ack 0
        > R 0:0(0)
        < . 1:1(0) ack 2
        > R 2:2(0)
        < P. 1:11(10) ack -100
        > R -100:-100(0)
        state SYN-RECEIVED
        < . 1:1(0) ack 1
        state ESTABLISHED
      `,
    },
    {
      name: "RST at RCV.NXT ends it, elsewhere in the window it is challenged, outside silence (RFC 5961 §3.2)",
      script: `
        < S 0:0(0) win 65535
        accept
        > S. 0:0(0) ack 1
        < R 100000:100000(0)
        < R 0:0(0)
        < R 2:2(0)
        > . 1:1(0) ack 1
        state SYN-RECEIVED
        < R 1:1(0)
        gone FLOW_RESET
      `,
    },
    {
      name: "data on the handshake's ACK is delivered (RFC 9293 §3.10.7.4)",
      script: `
        < S 0:0(0) win 65535
        accept
        > S. 0:0(0) ack 1
        < P. 1:101(100) ack 1
        ready syn,established,readable
        read 100
        +.02 > . 1:1(0) ack 101
      `,
    },
    {
      name: "data and FIN on the handshake's ACK: CLOSE-WAIT at once",
      script: `
        < S 0:0(0) win 65535
        accept
        > S. 0:0(0) ack 1
        < FP. 1:101(100) ack 1
        > . 1:1(0) ack 102
        ready syn,established,readable,eof
        state CLOSE-WAIT
        read 100
      `,
    },
    {
      name: "data on the SYN is not delivered and not acknowledged (RFC 9293 §3.10.7.2)",
      script: `
        < S 0:10(10) win 65535
        accept
        > S. 0:0(0) ack 1
        < . 11:11(0) ack 1
        state ESTABLISHED
        readable 0
        < P. 1:11(10) ack 1
        read 10
        +.02 > . 1:1(0) ack 11
      `,
    },
    {
      name: "the first data completes the handshake when the ACK was lost",
      script: `
        < S 0:0(0) win 65535
        accept
        > S. 0:0(0) ack 1
        < P. 1:501(500) ack 1
        state ESTABLISHED
        read 500
        +.02 > . 1:1(0) ack 501
      `,
    },
    {
      name: "data out of order completes the handshake too",
      script: `
        < S 0:0(0) win 65535
        accept
        > S. 0:0(0) ack 1
        < P. 501:601(100) ack 1
        > . 1:1(0) ack 1
        state ESTABLISHED
        < P. 1:501(500) ack 1
        > . 1:1(0) ack 601
        read 600
      `,
    },
    {
      name: "segments without ACK are dropped (RFC 9293 §3.10.7.4, fifth step)",
      script: `
        < S 0:0(0) win 65535
        accept
        > S. 0:0(0) ack 1
        < P 1:11(10)
        < F 1:1(0)
        state SYN-RECEIVED
        drops tcpFlags 2
      `,
    },
    {
      name: "close before the handshake ends queues FIN behind what was written (RFC 9293 §3.10.4)",
      script: `
        < S 0:0(0) win 65535
        accept
        > S. 0:0(0) ack 1
        write 10
        close
        < . 1:1(0) ack 1
        > FP. 1:11(10) ack 1
        state FIN-WAIT-1
        < F. 1:1(0) ack 12
        > . 12:12(0) ack 2
        +60.1 state TIME-WAIT
      `,
    },
    {
      name: "abort is a reset that the client accepts (RFC 9293 §3.10.5)",
      script: `
        < S 0:0(0) win 65535
        accept
        > S. 0:0(0) ack 1
        abort
        > R. 1:1(0) ack 1
        gone FLOW_ABORTED
      `,
    },
    {
      name: "a SYN with ECN bits never breaks the set-up, and ECN is not negotiated (RFC 3168 §6.1.1)",
      script: `
        < SEW 0:0(0) win 65535 <mss 1000>
        accept
        > S. 0:0(0) ack 1
        < EW. 1:1(0) ack 1
        state ESTABLISHED
        < PW. 1:11(10) ack 1
        read 10
        +.02 > . 1:1(0) ack 11
      `,
    },
    {
      name: "URG and PSH on a SYN are ignored",
      script: `
        < SPU 0:0(0) win 65535 urg 5
        accept
        > S. 0:0(0) ack 1
        < . 1:1(0) ack 1
        state ESTABLISHED
      `,
    },
  ];
  for (const { name, script, tcp } of rows) {
    drill(t, name, tcp === undefined ? {} : { tcp }, (d) => d.run(script.replaceAll("ISS1", String((d.iss + 1) | 0))));
  }
});

/** What the SYN offers and what the SYN-ACK answers. */
t.test("options of the handshake", async (t) => {
  const rows: readonly { name: string; syn: string; synAck: string; tcp?: object; mtu?: number }[] = [
    { name: "no options: MSS only (RFC 9293 MUST-14, RFC 7323 §2.2)", syn: "", synAck: "mss MSS" },
    { name: "MSS from a small MTU", syn: "mss 1460", synAck: "mss MSS", mtu: 1280 },
    { name: "MSS from a large MTU", syn: "mss 1460", synAck: "mss MSS", mtu: 9000 },
    { name: "window scale only when offered (RFC 7323 §2.2)", syn: "mss 1460,wscale 7", synAck: "mss MSS,wscale 6" },
    {
      name: "window scale switched off",
      syn: "mss 1460,wscale 7",
      synAck: "mss MSS",
      tcp: { windowScale: false },
    },
    { name: "window scale by option", syn: "wscale 0", synAck: "mss MSS,wscale 3", tcp: { windowScale: 3 } },
    { name: "a small buffer needs no shift", syn: "wscale 9", synAck: "mss MSS,wscale 0", tcp: { recvBuffer: 65535 } },
    { name: "one byte more does", syn: "wscale 9", synAck: "mss MSS,wscale 1", tcp: { recvBuffer: 65536 } },
    { name: "SACK only when offered (RFC 2018 §2)", syn: "mss 1460,sackOK", synAck: "mss MSS,sackOK" },
    { name: "SACK switched off", syn: "mss 1460,sackOK", synAck: "mss MSS", tcp: { sack: false } },
    {
      name: "timestamps only when offered (RFC 7323 §3.2)",
      syn: "mss 1460,TS val 77 ecr 0",
      synAck: "mss MSS,TS val 0 ecr 77",
    },
    {
      name: "timestamps switched off",
      syn: "mss 1460,TS val 77 ecr 0",
      synAck: "mss MSS",
      tcp: { timestamps: false },
    },
    {
      name: "what Linux offers",
      syn: "mss 1460,sackOK,TS val 4294967295 ecr 0,nop,wscale 7",
      synAck: "mss MSS,sackOK,TS val 0 ecr 4294967295,wscale 6",
    },
    { name: "unknown options are skipped (RFC 9293 MUST-6)", syn: "hex fe0611223344,sackOK", synAck: "mss MSS,sackOK" },
    { name: "options after the end are not read", syn: "mss 1460,eol,sackOK,wscale 3", synAck: "mss MSS" },
    { name: "option length 0 ends the walk (RFC 9293 MUST-7)", syn: "hex 0800,sackOK", synAck: "mss MSS" },
    { name: "option length 1 ends the walk", syn: "hex 0801,sackOK", synAck: "mss MSS" },
    { name: "an option past the header ends the walk", syn: "hex 0820,sackOK", synAck: "mss MSS" },
    { name: "a kind without room for a length ends the walk", syn: "nop,nop,nop,hex 08", synAck: "mss MSS" },
    { name: "timestamps of a wrong length are not negotiated", syn: "hex 080900000000000000", synAck: "mss MSS" },
    { name: "window scale of a wrong length is not negotiated", syn: "hex 03040000", synAck: "mss MSS" },
    { name: "SACK-permitted of a wrong length is not negotiated", syn: "hex 0403ff", synAck: "mss MSS" },
  ];
  for (const { name, syn, synAck, tcp, mtu } of rows) {
    const options = { ...(tcp && { tcp }), ...(mtu && { mtu }) };
    drill(t, name, options, (d) => {
      const mss = (mtu ?? 1500) - (d.family === 4 ? 40 : 60);
      d.run(`
        < S 0:0(0) win 65535 <${syn}>
        accept
        > S. 0:0(0) ack 1 <${synAck.replace("MSS", String(mss))}>
      `);
    });
  }

  const mssRows: readonly { name: string; syn: string; v4: number; v6: number; rfc: string }[] = [
    { name: "none: the default", syn: "", v4: 536, v6: 1220, rfc: "RFC 9293 MUST-15" },
    { name: "1000", syn: "mss 1000", v4: 1000, v6: 1000, rfc: "RFC 9293 MUST-16" },
    { name: "larger than the device takes", syn: "mss 65535", v4: 1460, v6: 1440, rfc: "RFC 9293 MUST-16" },
    { name: "0: the default", syn: "mss 0", v4: 536, v6: 1220, rfc: "CVE-2019-11479" },
    { name: "1: raised", syn: "mss 1", v4: 64, v6: 64, rfc: "CVE-2019-11479" },
    { name: "63: raised", syn: "mss 63", v4: 64, v6: 64, rfc: "CVE-2019-11479" },
    { name: "64", syn: "mss 64", v4: 64, v6: 64, rfc: "CVE-2019-11479" },
    { name: "less the timestamps", syn: "mss 1000,TS val 1 ecr 0", v4: 988, v6: 988, rfc: "RFC 9293 §3.7.1, RFC 6691" },
    { name: "of a wrong length: the default", syn: "hex 02031000", v4: 536, v6: 1220, rfc: "RFC 9293 MUST-7" },
  ];
  for (const { name, syn, v4, v6, rfc } of mssRows) {
    drill(t, `MSS of the client is ${name} (${rfc})`, {}, (d) => {
      d.run(`
        < S 0:0(0) win 65535 <${syn}>
        accept
        > S. 0:0(0) ack 1
        < . 1:1(0) ack 1
      `);
      d.flow.write(new Uint8Array(5000));
      d.drain();
      const sizes = d.takeOut().map((packet) => packet.tcp?.payload.length);
      same(sizes[0], d.family === 4 ? v4 : v6);
      same(Math.max(...(sizes as number[])), sizes[0]);
    });
  }

  drill(t, "the window of the SYN is not scaled, the one of the ACK is (RFC 7323 §2.2)", {}, (d) => {
    d.run(`
      < S 0:0(0) win 100 <mss 1000,wscale 7>
      accept
      > S. 0:0(0) ack 1 win 65535
    `);
    same(d.flow.info().sndWnd, 100);
    d.run("< . 1:1(0) ack 1 win 100");
    same(d.flow.info().sndWnd, 12_800);
  });

  drill(t, "a shift above 14 counts as 14 (RFC 7323 §2.3)", {}, (d) => {
    d.run(`
      < S 0:0(0) win 100 <mss 1000,wscale 15>
      accept
      > S. 0:0(0) ack 1
      < . 1:1(0) ack 1 win 2
    `);
    same(d.flow.info().sndWnd, 32_768);
  });

  drill(t, "options of the handshake in later segments are ignored (RFC 9293 MUST-65)", {}, (d) => {
    d.establish("mss 1000");
    d.run(`
      < P. 1:2(1) ack 1 <mss 100,wscale 5,sackOK>
      +.02 > . 1:1(0) ack 2 <>
    `);
    same(d.flow.info().mss, 1000);
    same(d.flow.info().sndWnd, 65535);
  });

  for (const [recvBuffer, window] of [
    [1, 1],
    [1000, 1000],
    [65_535, 65_535],
    [65_536, 65_535],
    [2 << 20, 65_535],
  ] as const) {
    drill(
      t,
      `without window scaling a buffer of ${recvBuffer} offers ${window} (RFC 9293 §3.10.7.2)`,
      { tcp: { recvBuffer } },
      `
      < S 0:0(0) win 65535 <mss 1000>
      accept
      > S. 0:0(0) ack 1 win ${window}
      < . 1:1(0) ack 1
      < P. 1:2(1) ack 1
      +.02 > . 1:1(0) ack 2 win ${Math.min(65_535, recvBuffer - 1)}
    `,
    );
  }
});

t.test("initial sequence numbers (RFC 6528)", async (t) => {
  /** ISNs that a stack of its own gives to flows from these ports at these times. */
  function isns(seed: number, flows: readonly { port: number; at: number }[]): number[] {
    const kit = new Kit({ seed, tcp: { synBacklog: 100_000 } });
    const numbers = flows.map(({ port, at }) => {
      kit.advance(at);
      kit.deliver(tcpPacket(4, { sourcePort: port, seq: 5, flags: Flag.S }));
      kit.flows.at(-1)?.accept();
      kit.drain();
      const seq = kit.takeOut()[0]?.tcp?.seq ?? Number.NaN;
      kit.deliver(tcpPacket(4, { sourcePort: port, seq: 6, flags: Flag.R }));
      return seq;
    });
    kit.finish();
    return numbers;
  }

  t.test("the same tuple: the clock of 4 us alone moves it", (t) => {
    const [first = 0, second = 0] = isns(1, [
      { port: 1000, at: 2000 },
      { port: 1000, at: 3000 },
    ]);
    t.equal((second - first) | 0, 250_000);
    t.end();
  });

  t.test("another secret, other numbers", (t) => {
    t.not(isns(1, [{ port: 1000, at: 2000 }])[0], isns(2, [{ port: 1000, at: 2000 }])[0]);
    t.end();
  });

  t.test("neighbouring tuples: no pattern in 10,000 numbers", (t) => {
    const numbers = isns(
      3,
      Array.from({ length: 10_000 }, (_, i) => ({ port: 1024 + i, at: 2000 })),
    );
    t.equal(new Set(numbers).size > 9_990, true, "hardly any twice");
    const steps = new Set(numbers.slice(1).map((number, i) => (number - (numbers[i] ?? 0)) | 0));
    t.equal(steps.size > 9_990, true, "no constant step");
    for (let bit = 0; bit < 32; bit++) {
      const ones = numbers.filter((number) => ((number >>> bit) & 1) === 1).length;
      t.equal(Math.abs(ones - 5000) < 300, true, `bit ${bit} is one ${ones} times`);
    }
    t.end();
  });
});

t.test("limits", async (t) => {
  function syn(kit: Kit, port: number, family: Family = 4): void {
    kit.deliver(tcpPacket(family, { sourcePort: port, seq: 1000, flags: Flag.S, options: tcpOptions("mss 1000") }));
  }

  t.test("handshakes that nobody ends leave nothing behind (gVisor 11557, tun2socks 82)", (t) => {
    const kit = new Kit({ tcp: { synBacklog: 100_000 } });
    for (let round = 0; round < 5; round++) {
      for (let port = 1; port <= 5000; port++) {
        syn(kit, port);
        const flow = kit.flows.pop();
        if (port % 3 === 0) flow?.reject("rst");
        else if (port % 3 === 1) {
          flow?.accept();
          kit.drain();
          kit.deliver(tcpPacket(4, { sourcePort: port, seq: 1001, flags: Flag.R }));
        } else flow?.accept();
        kit.drain();
        kit.takeOut();
      }
      kit.advance(kit.now + 130_000);
      kit.takeOut();
      const stats = kit.stack.stats();
      t.same(stats.flows, {});
      t.equal(stats.timersArmed, 0);
      t.equal(stats.bytesBuffered, 0);
    }
    kit.finish();
    t.end();
  });

  t.test("options out of range are refused with field, value and limits", (t) => {
    const random = seededRandom(1);
    const rows: readonly [object, RegExp][] = [
      [{ mtu: 67 }, /mtu is 67.*68 to 65535/],
      [{ mtu: 65_536 }, /mtu is 65536/],
      [{ mtu: 1.5 }, /mtu is 1\.5/],
      [{ tcp: { recvBuffer: 0 } }, /recvBuffer is 0.*from 1 to/],
      [{ tcp: { windowScale: 15 } }, /windowScale is 15.*from 0 to 14/],
      [{ tcp: { delayedAckMs: 501 } }, /delayedAckMs is 501/],
      [{ tcp: { maxFlows: Number.NaN } }, /maxFlows is NaN/],
      [{ tcp: { maxFlows: -1 } }, /maxFlows is -1.*from 0 to/],
      [{ tcp: { maxFlowsPerSource: 1.5 } }, /maxFlowsPerSource is 1\.5.*from 0 to/],
      [{ tcp: { synBacklog: 0 } }, /synBacklog is 0.*from 1 to/],
      [{ tcp: { keepAliveIdleMs: 999 } }, /keepAliveIdleMs is 999.*from 1000 to/],
      [{ tcp: { keepAliveIntervalMs: 0 } }, /keepAliveIntervalMs is 0.*from 1000 to/],
      [{ tcp: { keepAliveProbes: 0 } }, /keepAliveProbes is 0.*from 1 to 255/],
    ];
    for (const [options, message] of rows)
      t.throws(() => new Stack({ random, ...options }), { name: "RangeError", message });
    t.end();
  });

  t.test("IPv6 needs an MTU of 1280 (RFC 8200 §5)", (t) => {
    const kit = new Kit({ family: 6, mtu: 1279 });
    syn(kit, 1, 6);
    t.equal(kit.flows.length, 0);
    t.same(kit.stack.stats().drops, { ipVersion: 1 });
    kit.finish();
    t.end();
  });

  t.test("two stacks share nothing", (t) => {
    const one = new Kit({ iss: 0, slabBytes: 4 << 20 });
    const other = new Kit({ iss: 0, slabBytes: 4 << 20 });
    syn(one, 1);
    t.equal(other.flows.length, 0);
    t.same(other.stack.stats().flows, {});
    one.finish();
    other.finish();
    t.end();
  });

  t.test("addresses and ports of a flow, also after its end", (t) => {
    for (const family of [4, 6] as const) {
      const kit = new Kit({ family });
      syn(kit, 4321, family);
      const [flow] = kit.flows;
      const check = (): void => {
        t.equal(flow?.family, family);
        t.same(flow?.local, { address: SERVER[family], port: 443 });
        t.same(flow?.remote, { address: CLIENT[family], port: 4321 });
      };
      check();
      kit.deliver(tcpPacket(family, { sourcePort: 4321, seq: 1001, flags: Flag.R }));
      t.equal(flow?.state, "CLOSED");
      t.equal(showReady(kit.ready.get(flow as never) ?? 0), "syn,closed");
      check();
      kit.finish();
    }
    t.end();
  });
});

t.test("stats", (t) => {
  const d = new Drill({ tcp: {} });
  d.establish();
  d.run("< P. 1:101(100) ack 1\n+.02 > . 1:1(0) ack 101");
  const stats = d.stack.stats();
  t.same(stats.flows, { ESTABLISHED: 1 });
  t.equal(stats.packetsIn, 3);
  t.equal(stats.packetsOut, 2);
  t.equal(stats.bytesBuffered, 100);
  t.same(stats.drops, {});
  d.finish();
  t.end();
});
