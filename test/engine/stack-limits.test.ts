import t from "tap";
import { StackLimits } from "../../src/engine/stack-limits.ts";
import { SILENT } from "../../src/proxy/logger.ts";

t.test("each limit of the stack is told once, and again after a quiet minute", async (t) => {
  const log: string[] = [];
  const limits = new StackLimits({ ...SILENT, warn: (message) => log.push(message) });
  const none = { flows: 0, perSource: 0, halfOpen: 0, memory: 0 };
  limits.look(none, 0);
  t.same(log, []);
  for (const { name, says } of [
    { name: "flows", says: /--max-flows allows/ },
    { name: "perSource", says: /--max-flows-per-source allows/ },
    { name: "halfOpen", says: /--max-half-open allows/ },
    { name: "memory", says: /--max-memory allows/ },
  ]) {
    log.length = 0;
    const at = (count: number): typeof none => ({ ...none, [name]: count });
    const told = new StackLimits({ ...SILENT, warn: (message) => log.push(message) });
    told.look(at(1), 10);
    told.look(at(1), 20);
    told.look(at(5), 30_000);
    told.look(at(5), 200_000);
    t.equal(log.length, 1, name);
    t.match(log[0], says);
    told.look(at(6), 200_001);
    t.equal(log.length, 2, `${name}: news again`);
  }
});
