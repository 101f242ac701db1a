// Runs in a worker for sockets.test.ts: uses the addon there and ends in various ways, leaving descriptors open.
import { parentPort, workerData } from "node:worker_threads";
import { Epoll } from "../../src/io/addon.ts";
import { addonForTest, LOOPBACK, Memory } from "./memory.ts";

const { task, port } = workerData as { readonly task: string; readonly port: number };
const DESC = 0;
const LIST = 256;
const EVENTS = 512;
const META = 4096;
const DATA = 8192;

function run(): void {
  if (task === "nothing") return;
  const addon = addonForTest();
  const memory = new Memory(addon, 262_144);
  let fd = -1;
  let text = "";

  const onReady = () => {
    switch (task) {
      case "busy":
        parentPort?.postMessage("in the callback");
        for (;;); // until the thread is terminated
      case "throw":
      case "uncaught":
        addon.pollerDelete(fd);
        throw new Error("thrown in the callback");
      case "exit":
        process.exit(7);
        break;
      case "closing":
        addon.pollerClose();
        addon.pollerOpen(() => {});
        addon.pollerClose();
        process.exit(7);
        break;
      default:
        addon.pollerWait(memory.id, EVENTS, 16, 0);
        memory.put(LIST, [fd, 0, 0, 0]);
        addon.streamRead(memory.id, LIST, 1, DATA, 262_144, 65_536, 1);
        if (memory.word(LIST + 4) > 0) text += memory.slice(DATA, memory.word(LIST + 4)).toString();
        if (memory.word(LIST + 4) !== 0) return;
        parentPort?.postMessage(text);
        addon.pollerRef(0); // nothing else keeps the thread alive; the poller stays open
    }
  };
  if (task === "uncaught") {
    process.once("uncaughtException", (error) => {
      parentPort?.postMessage(`uncaughtException: ${error.message}`);
      addon.pollerRef(0);
    });
  }
  addon.pollerOpen(onReady);
  memory.put(DESC, [4, 0, ...LOOPBACK[4], 0, 0, -1, -1, 0, 0, 0, 0, 0]);
  const udp = Array.from({ length: 20 }, () => addon.udpOpen(memory.id, DESC))[19] ?? -1;
  if (task === "memory") {
    addon.socketName(udp, 0, memory.id, META);
    memory.put(LIST, [1, 4, memory.word(META + 4), ...LOOPBACK[4], 0, DATA, 100]);
    addon.udpWrite(udp, memory.id, LIST, 40, 1);
    addon.udpRead(udp, memory.id, DATA, DATA, META, 1);
    addon.pollerRef(0);
    return;
  }
  memory.put(DESC, [4, port, ...LOOPBACK[4], 0, 0, -1, -1, 0, 0, 0, 0, 0]);
  fd = addon.tcpConnect(memory.id, DESC);
  addon.pollerAdd(fd, Epoll.IN, 1, 0);
}

run();
