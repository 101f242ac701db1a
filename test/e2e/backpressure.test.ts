import "../host/in-namespace.ts";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { createServer as createHttpServer } from "node:http";
import { createServer } from "node:net";
import { Readable } from "node:stream";
import t from "tap";
import { SERVER } from "../../src/cli/demo/network.ts";
import { skipWithoutTun } from "../cli/command.ts";
import { findProgram, Lab, type Program, pause, seededStream, streamUrl } from "./harness.ts";
import { startServe } from "./peers/socks.ts";

const MIB = 1024 * 1024;
const GIB = 1024 * MIB;
/** How much the relay's resident memory may grow, bytes. */
const RELAY_BOUND = 32 * MIB;
/** Room in all buffers on the way, those of six sockets in the kernel (tcp_rmem, tcp_wmem) and the proxy's, bytes. */
const PATH_BOUND = 256 * MIB;
const PORT = 9000;
/** Looks without a change after which a stream counts as stopped; they are at least 10 ms apart. */
const QUIET_LOOKS = 200;

const noTun = skipWithoutTun();
const skip = findProgram("curl") === null ? "curl is not installed" : noTun;
t.setTimeout(300_000);

/** A stream that counts what was taken from it. */
class Counted {
  taken = 0;
  readonly stream: Readable;

  constructor(bytes: number) {
    this.stream = Readable.from(this.#chunks(bytes), { objectMode: false });
  }

  async *#chunks(bytes: number): AsyncGenerator<Buffer> {
    for await (const chunk of seededStream(5, bytes)) {
      this.taken += (chunk as Buffer).length;
      yield chunk as Buffer;
    }
  }

  /** Resolves when something was taken and nothing more is. */
  async stopped(): Promise<void> {
    let before = 0;
    for (let quiet = 0; quiet < QUIET_LOOKS; quiet++) {
      if (this.taken === 0 || this.taken !== before) quiet = 0;
      before = this.taken;
      await pause();
    }
  }
}

/** Resident memory of the relay, bytes. */
function residentBytes(program: Program): number {
  const status = readFileSync(`/proc/${program.process.pid}/status`, "utf8");
  return Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1]) * 1024;
}

t.test(
  "a slow reader and a stuck upstream stop the other side; memory stays bounded (DESIGN §4)",
  { skip },
  async (t) => {
    const lab = await Lab.open(t);
    const peer = await startServe(lab, 1080);
    const relay = await lab.relay(peer.urls);
    const fetch = async (): Promise<number> => {
      const ended = await lab.inClient("curl", [
        "-qsS",
        "-o",
        "/dev/null",
        "-w",
        "%{size_download}",
        streamUrl(4, "/stream/1/1000000"),
      ]);
      return Number(ended.stdout);
    };
    t.equal(await fetch(), 1_000_000);
    const start = residentBytes(relay);

    await t.test("download of 1 GiB at 1 KiB/s", async (t) => {
      const source = new Counted(GIB);
      const server = createHttpServer((_request, response) => {
        response.on("close", () => source.stream.destroy());
        source.stream.on("error", () => {}).pipe(response);
      });
      t.teardown(() => server.close());
      await once(server.listen(PORT, SERVER[4]), "listening");
      const reader = lab.startInClient("curl", [
        "-qsS",
        "--limit-rate",
        "1k",
        "-o",
        "/dev/null",
        `http://${SERVER[4]}:${PORT}/`,
      ]);
      await source.stopped();
      t.ok(source.taken < PATH_BOUND, `the server could send ${source.taken} bytes`);
      t.ok(residentBytes(relay) - start < RELAY_BOUND, `the relay grew by ${residentBytes(relay) - start} bytes`);
      t.equal(await fetch(), 1_000_000, "another connection is not held up");
      await reader.stop("SIGKILL");
    });

    await t.test("upload of 1 GiB to a server that does not read", async (t) => {
      const server = createServer((socket) => socket.pause().on("error", () => {}));
      t.teardown(() => server.close());
      await once(server.listen(PORT + 1, SERVER[4]), "listening");
      const source = new Counted(GIB);
      const url = `http://${SERVER[4]}:${PORT + 1}/`;
      const writer = lab.startInClient("curl", ["-qsS", "-T", "-", "-H", "Expect:", url], source.stream);
      await source.stopped();
      t.ok(source.taken < PATH_BOUND, `the client could send ${source.taken} bytes`);
      t.ok(residentBytes(relay) - start < RELAY_BOUND, `the relay grew by ${residentBytes(relay) - start} bytes`);
      t.equal(await fetch(), 1_000_000, "another connection is not held up");
      await writer.stop("SIGKILL");
    });
    t.equal((await relay.stop()).code, 0);
  },
);
