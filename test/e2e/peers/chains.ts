/** Two proxies, one behind the other. */
import type { Lab } from "../harness.ts";
import { startSquid, startTinyproxy } from "./http.ts";
import type { Peer } from "./peer.ts";
import { startDante, startDanteSocks4, startMicrosocks, startServe } from "./socks.ts";

type Start = (lab: Lab, port: number) => Promise<Peer>;

/** The second one listens on the next port. */
async function startChain(lab: Lab, port: number, starts: readonly [Start, Start]): Promise<Peer> {
  const first = await starts[0](lab, port);
  const second = await starts[1](lab, port + 1);
  return { ...first, urls: [...first.urls, ...second.urls], programs: [...first.programs, ...second.programs] };
}

export function startMicrosocksThenDante(lab: Lab, port: number): Promise<Peer> {
  return startChain(lab, port, [startMicrosocks, startDante]);
}

export function startSquidThenServe(lab: Lab, port: number): Promise<Peer> {
  return startChain(lab, port, [startSquid, startServe]);
}

export function startSocks4ThenTinyproxy(lab: Lab, port: number): Promise<Peer> {
  return startChain(lab, port, [startDanteSocks4, startTinyproxy]);
}
