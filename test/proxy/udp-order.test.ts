import fc from "fast-check";
import t from "tap";
import { UdpOrder } from "../../src/proxy/udp-order.ts";

const source = (n: number): Int32Array => Int32Array.of(0, 0, 0xffff, n);

/** The plain version: every association in order of use, counted anew each time. */
class PlainOrder {
  /** Slot and source, the one unused for longest first. */
  used: { readonly slot: number; readonly source: number }[] = [];

  add(slot: number, from: number): void {
    this.used.push({ slot, source: from });
  }

  touch(slot: number): void {
    const entry = this.used.find((one) => one.slot === slot);
    if (entry === undefined) throw new Error(`no slot ${slot}`);
    this.remove(slot);
    this.used.push(entry);
  }

  remove(slot: number): void {
    this.used = this.used.filter((one) => one.slot !== slot);
  }

  count(from: number): number {
    return this.used.filter((one) => one.source === from).length;
  }

  /** All slots that may make room for one more of `from`. */
  victims(from: number): number[] {
    const most = Math.max(0, ...this.used.map((one) => this.count(one.source)));
    const holders = [...new Set(this.used.map((one) => one.source))].filter((one) => this.count(one) === most);
    const chosen = holders.includes(from) ? [from] : holders;
    return chosen.map((holder) => this.used.find((one) => one.source === holder)?.slot ?? -1);
  }
}

t.test("one source: the association unused for longest makes room (RFC 4787 REQ-5)", async (t) => {
  const order = new UdpOrder(8, 1);
  t.equal(order.victim(source(1)), -1);
  for (const slot of [0, 1, 2]) order.add(slot, source(1));
  t.equal(order.victim(source(1)), 0);
  order.touch(0);
  t.equal(order.victim(source(1)), 1);
  order.remove(1);
  t.equal(order.victim(source(1)), 2);
  t.equal(order.sources, 1);
});

t.test("a source that floods pushes out its own, whoever asks for room", async (t) => {
  const order = new UdpOrder(8, 1);
  order.add(0, source(1));
  for (const slot of [1, 2, 3]) order.add(slot, source(2));
  t.equal(order.victim(source(2)), 1, "its own");
  t.equal(order.victim(source(3)), 1, "for a newcomer too, though that of another is older");
  order.remove(1);
  order.remove(2);
  t.equal(order.victim(source(1)), 0, "who holds as much as the greatest gives up its own");
});

t.test("victims are those of the plain version, whatever happens (property)", async (t) => {
  const action = fc.record({
    kind: fc.constantFrom("add", "add", "touch", "remove", "evict"),
    pick: fc.nat(1000),
    from: fc.nat(5),
  });
  fc.assert(
    fc.property(fc.array(action, { maxLength: 200 }), (actions) => {
      const max = 24;
      const order = new UdpOrder(max, 7);
      const plain = new PlainOrder();
      const free = Array.from({ length: max }, (_, i) => max - 1 - i);
      for (const { kind, pick, from } of actions) {
        const entry = plain.used[pick % Math.max(1, plain.used.length)];
        const victims = plain.victims(from);
        const victim = order.victim(source(from));
        if (victims.length === 0 ? victim !== -1 : !victims.includes(victim)) return false;
        if ((kind === "add" && free.length === 0) || kind === "evict") {
          if (victim < 0) continue;
          order.remove(victim);
          plain.remove(victim);
          free.push(victim);
        }
        if (kind === "add") {
          const slot = free.pop() ?? -1;
          order.add(slot, source(from));
          plain.add(slot, from);
        } else if (kind === "touch" && entry !== undefined) {
          order.touch(entry.slot);
          plain.touch(entry.slot);
        } else if (kind === "remove" && entry !== undefined) {
          order.remove(entry.slot);
          plain.remove(entry.slot);
          free.push(entry.slot);
        }
        if (order.sources !== new Set(plain.used.map((one) => one.source)).size) return false;
      }
      return true;
    }),
    { numRuns: 300 },
  );
  t.pass("300 runs");
});

t.test("many sources and slots: the arrays grow, and everything goes away again", async (t) => {
  const order = new UdpOrder(5000, 3);
  for (let i = 0; i < 5000; i++) order.add(i, source(i % 700));
  t.equal(order.sources, 700);
  const seen = new Set<number>();
  for (let i = 0; i < 5000; i++) {
    const victim = order.victim(source(100_000));
    seen.add(victim);
    order.remove(victim);
  }
  t.equal(seen.size, 5000);
  t.equal(order.sources, 0);
  t.equal(order.victim(source(1)), -1);
});
