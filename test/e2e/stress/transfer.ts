/** Bulk in one direction, checked by hash. */
import { createHash } from "node:crypto";
import { connect } from "node:net";
import { performance } from "node:perf_hooks";
import { Content, contentDigest } from "./content.ts";
import { BULK_PORT, type IpVersion, SERVER } from "./network.ts";

/** How a transfer went. */
export interface TransferResult {
  /** `ok`, or what went wrong. */
  readonly result: string;
  readonly ms: number;
}

/** Whether `text` is the digest of the content, in words. */
function judge(what: string, digest: string, seed: number, bytes: number): string {
  return digest === contentDigest(seed, bytes) ? "ok" : `${what} of ${bytes} bytes (seed ${seed}) differs`;
}

/** Reads a content to its end. */
export function download(version: IpVersion, seed: number, bytes: number): Promise<TransferResult> {
  const start = performance.now();
  return new Promise((resolve) => {
    const hash = createHash("sha256");
    let read = 0;
    const done = (result: string): void => resolve({ result, ms: performance.now() - start });
    const socket = connect({ host: SERVER[version], port: BULK_PORT });
    socket.write(`down ${seed} ${bytes}\n`);
    socket.on("data", (piece) => {
      read += piece.length;
      hash.update(piece);
    });
    socket.on("end", () =>
      done(read === bytes ? judge("download", hash.digest("hex"), seed, bytes) : `ended at ${read}`),
    );
    socket.on("error", (error: NodeJS.ErrnoException) => done(`download: ${error.code} after ${read} bytes`));
  });
}

/** Sends a content, ends, and compares the server's digest. */
export function upload(version: IpVersion, seed: number, bytes: number): Promise<TransferResult> {
  const start = performance.now();
  return new Promise((resolve) => {
    let answer = "";
    const done = (result: string): void => resolve({ result, ms: performance.now() - start });
    const socket = connect({ host: SERVER[version], port: BULK_PORT, allowHalfOpen: true });
    const content = new Content(seed, bytes);
    const more = (): void => {
      for (let piece = content.next(); piece !== null; piece = content.next()) {
        if (socket.write(piece)) continue;
        socket.once("drain", more);
        return;
      }
      socket.end();
    };
    socket.write("up\n");
    more();
    socket.setEncoding("latin1");
    socket.on("data", (text) => {
      answer += text;
    });
    socket.on("end", () => done(judge("upload", answer, seed, bytes)));
    socket.on("error", (error: NodeJS.ErrnoException) => done(`upload: ${error.code}`));
  });
}
