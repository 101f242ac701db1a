/** SEGMENT ARRIVES (RFC 9293 §3.10.7): every stimulus in every state of a passive flow. No cell is empty. */
import t from "tap";
import { type Drill, drill, Flag, type Packet } from "./kit.ts";

/** A state: how a flow gets there, and its RCV.NXT, SND.UNA and SND.NXT then, relative to the initial numbers. */
interface Stage {
  readonly state: string;
  readonly script: string;
  readonly r: number;
  readonly u: number;
  readonly n: number;
}

const SYN = "< S 0:0(0) win 65535 <mss 1000>";
const HANDSHAKE = `${SYN}\naccept\n> S. 0:0(0) ack 1`;
/** Ten bytes have gone each way that can go. */
const ESTABLISHED = `${HANDSHAKE}\n< . 1:1(0) ack 1\nwrite 10\n> P. 1:11(10) ack 1\n< . 1:1(0) ack 11`;
const FIN_WAIT_1 = `${ESTABLISHED}\nend\n> F. 11:11(0) ack 1`;
const FIN_WAIT_2 = `${FIN_WAIT_1}\n< . 1:1(0) ack 12`;
const CLOSE_WAIT = `${ESTABLISHED}\n< F. 1:1(0) ack 11\n> . 11:11(0) ack 2`;
const CLOSING = `${FIN_WAIT_1}\n< F. 1:1(0) ack 11\n> . 12:12(0) ack 2`;
const LAST_ACK = `${CLOSE_WAIT}\nend\n> F. 11:11(0) ack 2`;
const TIME_WAIT = `${FIN_WAIT_2}\n< F. 1:1(0) ack 12\n> . 12:12(0) ack 2`;

const STAGES: readonly Stage[] = [
  { state: "LISTEN", script: SYN, r: 1, u: 0, n: 0 },
  { state: "SYN-RECEIVED", script: HANDSHAKE, r: 1, u: 0, n: 1 },
  { state: "ESTABLISHED", script: ESTABLISHED, r: 1, u: 11, n: 11 },
  { state: "FIN-WAIT-1", script: FIN_WAIT_1, r: 1, u: 11, n: 12 },
  { state: "FIN-WAIT-2", script: FIN_WAIT_2, r: 1, u: 12, n: 12 },
  { state: "CLOSE-WAIT", script: CLOSE_WAIT, r: 2, u: 11, n: 11 },
  { state: "CLOSING", script: CLOSING, r: 2, u: 11, n: 12 },
  { state: "LAST-ACK", script: LAST_ACK, r: 2, u: 11, n: 12 },
  { state: "TIME-WAIT", script: TIME_WAIT, r: 2, u: 12, n: 12 },
];

/** A stimulus as a segment, with `r`, `u` and `n` for the numbers of the stage. */
const STIMULI: Readonly<Record<string, (s: Stage) => string>> = {
  "RST at RCV.NXT": ({ r }) => `R ${r}:${r}(0)`,
  "RST in the window": ({ r }) => `R ${r + 1}:${r + 1}(0)`,
  "RST at the last byte of the window": ({ r }) => `R ${r + 65534}:${r + 65534}(0)`,
  "RST at the right edge of the window (a deviation)": ({ r }) => `R ${r + 65535}:${r + 65535}(0)`,
  "RST right of the window": ({ r }) => `R ${r + 65536}:${r + 65536}(0)`,
  "RST left of the window": ({ r }) => `R ${r - 1}:${r - 1}(0)`,
  "copy of the SYN": () => "S 0:0(0)",
  "SYN in the window": ({ r }) => `S ${r + 1}:${r + 1}(0)`,
  "SYN left of the window": ({ r }) => `S ${r - 1000}:${r - 1000}(0)`,
  "SYN-ACK": ({ r, n }) => `S. ${r}:${r}(0) ack ${n}`,
  "no flags, data": ({ r }) => `- ${r}:${r + 10}(10)`,
  "FIN without ACK": ({ r }) => `F ${r}:${r}(0)`,
  "ACK of everything": ({ r, n }) => `. ${r}:${r}(0) ack ${n}`,
  "old ACK": ({ r, u }) => `. ${r}:${r}(0) ack ${u - 1}`,
  "ACK below the largest window": ({ r, u }) => `. ${r}:${r}(0) ack ${u - 65536}`,
  "ACK above SND.NXT": ({ r, n }) => `. ${r}:${r}(0) ack ${n + 1}`,
  "ACK from left of the window": ({ r, n }) => `. ${r - 1}:${r - 1}(0) ack ${n}`,
  data: ({ r, n }) => `P. ${r}:${r + 10}(10) ack ${n}`,
  "data out of order": ({ r, n }) => `P. ${r + 10}:${r + 20}(10) ack ${n}`,
  "data with an ACK above SND.NXT": ({ r, n }) => `P. ${r}:${r + 10}(10) ack ${n + 1}`,
  "data right of the window": ({ r, n }) => `P. ${r + 65535}:${r + 65545}(10) ack ${n}`,
  "old data": ({ r, n }) => `P. ${r - 10}:${r}(10) ack ${n}`,
  FIN: ({ r, n }) => `F. ${r}:${r}(0) ack ${n}`,
  "FIN with data": ({ r, n }) => `FP. ${r}:${r + 10}(10) ack ${n}`,
  "FIN and an old ACK": ({ r, u }) => `F. ${r}:${r}(0) ack ${u}`,
  "FIN out of order": ({ r, n }) => `F. ${r + 10}:${r + 10}(0) ack ${n}`,
  "FIN left of the window": ({ r, n }) => `F. ${r - 1}:${r - 1}(0) ack ${n}`,
};

/** What is sent and what the state becomes, in the order of `STAGES`: `ack+1` is an ACK one beyond RCV.NXT, `-` silence. */
const TABLE: Readonly<Record<string, readonly string[]>> = {
  "RST at RCV.NXT": [
    "- CLOSED FLOW_RESET",
    "- CLOSED FLOW_RESET",
    "- CLOSED FLOW_RESET",
    "- CLOSED FLOW_RESET",
    "- CLOSED FLOW_RESET",
    "- CLOSED FLOW_RESET",
    "- CLOSED FLOW_RESET",
    "- CLOSED FLOW_RESET",
    "-",
  ],
  "RST in the window": ["-", "ack", "ack", "ack", "ack", "ack", "ack", "ack", "-"],
  "RST at the last byte of the window": ["-", "ack", "ack", "ack", "ack", "ack", "ack", "ack", "-"],
  "RST at the right edge of the window (a deviation)": ["-", "ack", "ack", "ack", "ack", "ack", "ack", "ack", "-"],
  "RST right of the window": ["-", "-", "-", "-", "-", "-", "-", "-", "-"],
  "RST left of the window": ["- CLOSED FLOW_RESET", "-", "-", "-", "-", "-", "-", "-", "-"],
  "copy of the SYN": ["-", "syn-ack", "ack", "ack", "ack", "ack", "ack", "ack", "ack"],
  "SYN in the window": ["- CLOSED FLOW_RESET new flow", "ack", "ack", "ack", "ack", "ack", "ack", "ack", "- new flow"],
  "SYN left of the window": ["- CLOSED FLOW_RESET new flow", "ack", "ack", "ack", "ack", "ack", "ack", "ack", "ack"],
  "SYN-ACK": ["rst 0", "ack", "ack", "ack", "ack", "ack", "ack", "ack", "ack"],
  "no flags, data": ["-", "-", "-", "-", "-", "-", "-", "-", "-"],
  "FIN without ACK": ["-", "-", "-", "-", "-", "-", "-", "-", "-"],
  "ACK of everything": ["rst 0", "- ESTABLISHED", "-", "- FIN-WAIT-2", "-", "-", "- TIME-WAIT", "- CLOSED", "-"],
  "old ACK": ["rst -1", "rst n-2", "-", "-", "-", "-", "-", "-", "-"],
  "ACK below the largest window": ["rst -65536", "rst n-65537", "ack", "ack", "ack", "ack", "ack", "ack", "-"],
  "ACK above SND.NXT": ["rst 1", "rst n+1", "ack", "ack", "ack", "ack", "ack", "ack", "-"],
  "ACK from left of the window": ["rst 0", "ack", "ack", "ack", "ack", "ack", "ack", "ack", "ack"],
  data: ["rst 0", "ack+10 ESTABLISHED", "ack+10", "ack+10 FIN-WAIT-2", "ack+10", "-", "- TIME-WAIT", "- CLOSED", "ack"],
  "data out of order": [
    "rst 0",
    "ack ESTABLISHED",
    "ack",
    "ack FIN-WAIT-2",
    "ack",
    "-",
    "- TIME-WAIT",
    "- CLOSED",
    "ack",
  ],
  "data with an ACK above SND.NXT": ["rst 1", "rst n+1", "ack", "ack", "ack", "ack", "ack", "ack", "ack"],
  "data right of the window": ["rst 0", "ack", "ack", "ack", "ack", "ack", "ack", "ack", "ack"],
  "old data": ["rst 0", "ack", "ack", "ack", "ack", "ack", "ack", "ack", "ack"],
  FIN: [
    "rst 0",
    "ack+1 CLOSE-WAIT",
    "ack+1 CLOSE-WAIT",
    "ack+1 TIME-WAIT",
    "ack+1 TIME-WAIT",
    "ack",
    "- TIME-WAIT",
    "- CLOSED",
    "ack",
  ],
  "FIN with data": [
    "rst 0",
    "ack+11 CLOSE-WAIT",
    "ack+11 CLOSE-WAIT",
    "ack+11 TIME-WAIT",
    "ack+11 TIME-WAIT",
    "ack",
    "- TIME-WAIT",
    "- CLOSED",
    "ack",
  ],
  "FIN and an old ACK": [
    "rst 0",
    "rst n-1",
    "ack+1 CLOSE-WAIT",
    "ack+1 CLOSING",
    "ack+1 TIME-WAIT",
    "ack",
    "ack",
    "ack",
    "ack",
  ],
  "FIN out of order": [
    "rst 0",
    "ack ESTABLISHED",
    "ack",
    "ack FIN-WAIT-2",
    "ack",
    "ack",
    "- TIME-WAIT",
    "- CLOSED",
    "ack",
  ],
  "FIN left of the window": ["rst 0", "ack", "ack", "ack", "ack", "ack", "ack", "ack", "ack"],
};

/** What was sent: ACKs by how far they are beyond RCV.NXT, resets by SEQ, relative to SND.NXT. */
function describe(d: Drill, stage: Stage, packet: Packet): string {
  const { tcp } = packet;
  if (tcp === undefined) return "not TCP";
  const seq = (tcp.seq - d.iss - stage.n) | 0;
  const ack = (tcp.ack - d.irs - stage.r) | 0;
  const offset = (value: number): string => (value === 0 ? "" : value > 0 ? `+${value}` : `${value}`);
  if (tcp.payload.length > 0) return `data ${tcp.payload.length}`;
  if (tcp.flags === (Flag.S | Flag.A)) return "syn-ack";
  if (tcp.flags === Flag.R) return `rst ${stage.state === "LISTEN" ? tcp.seq | 0 : `n${offset(seq)}`}`;
  if (tcp.flags === (Flag.R | Flag.A)) return `rst-ack${offset(ack)}`;
  if (tcp.flags === Flag.A && seq === 0) return `ack${offset(ack)}`;
  return d.show(packet);
}

t.test("grid", async (t) => {
  for (const [stimulus, segment] of Object.entries(STIMULI)) {
    STAGES.forEach((stage, column) => {
      const cell = TABLE[stimulus]?.[column];
      drill(t, `${stage.state}: ${stimulus}: ${cell}`, {}, (d) => {
        d.run(stage.script);
        d.flows.splice(0, d.flows.length - 1);
        const { flow } = d;
        if (flow.state !== stage.state) throw new Error(`the stage is ${flow.state}`);
        try {
          d.run(`< ${segment(stage)}`);
        } catch {
          // What is sent is looked at below.
        }
        d.advance(d.now + 50);
        const sent = d.takeOut().map((packet) => describe(d, stage, packet));
        const state = flow.state === stage.state ? "" : ` ${flow.state}`;
        const found = `${sent.join(", ") || "-"}${state}${flow.error === null ? "" : ` ${flow.error}`}`;
        const fresh = d.flows.length > 1 ? " new flow" : "";
        if (found + fresh !== cell) throw new Error(`found ${found}${fresh}, expected ${cell}`);
      });
    });
  }
});
