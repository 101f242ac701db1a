/** What a new flow may run into: limits on flows, on those of one client, on those half open, and on memory. */
import { Drop } from "../wire/drop.ts";
import type { IpPacket } from "../wire/ip.ts";
import { ACK_FLAG, RST } from "../wire/tcp.ts";
import type { TcpContext } from "./context.ts";
import { sendResetOf } from "./reset.ts";
import { SOURCE_WORDS } from "./source-counts.ts";

const sourceWords = new Int32Array(SOURCE_WORDS);

/**
 * Whether a limit forbids a new flow from the packet's source; it is counted then. The client is to get a reset: silence
 * would have its kernel try again for minutes, and tell its program nothing.
 */
export function isRefusedByLimit(ctx: TcpContext, packet: IpPacket): boolean {
  const { maxFlows, maxFlowsPerSource } = ctx.settings;
  const { refused, sources } = ctx;
  // What little memory is left is for the flows that are there: a new one could not send a byte.
  if (ctx.slab.scarce) {
    refused.memory++;
    ctx.drop(Drop.tcpMemory);
    return true;
  }
  if (ctx.table.size - ctx.timeWait.size >= maxFlows) {
    refused.flows++;
    ctx.drop(Drop.tcpFlowLimit);
    return true;
  }
  if (sources === null) return false;
  sourceWords[0] = packet.source0;
  sourceWords[1] = packet.source1;
  sourceWords[2] = packet.source2;
  sourceWords[3] = packet.source3;
  if (sources.count(sourceWords, 0) < maxFlowsPerSource) return false;
  refused.perSource++;
  ctx.drop(Drop.tcpSourceLimit);
  return true;
}

/**
 * Makes room for one more flow in SYN-RECEIVED, by resetting the oldest when there are as many as may be (RFC 4987 §3.4):
 * under a flood that is most likely one whose client will never answer.
 */
export function makeHalfOpenRoom(ctx: TcpContext): void {
  const { halfOpen } = ctx;
  if (halfOpen.size < ctx.settings.synBacklog) return;
  const tcb = ctx.tcbs[halfOpen.oldest];
  if (tcb === null || tcb === undefined) return;
  ctx.drop(Drop.tcpHalfOpenLimit);
  ctx.refused.halfOpen++;
  // Whether the client has our SYN or not, this ends its connect(): it acknowledges the client's SYN and stands behind ours.
  sendResetOf(ctx, tcb, tcb.sndNxt, tcb.rcvNxt, RST | ACK_FLAG);
  ctx.detach(tcb, "FLOW_ABORTED");
}
