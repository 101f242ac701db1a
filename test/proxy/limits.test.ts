import t from "tap";
import { Errno } from "../../src/io/addon.ts";
import { LimitNotice } from "../../src/proxy/limit-notice.ts";
import { GRANTED, Lab, METHOD_NONE } from "./relay-lab.ts";

t.test("a limit is news once, and again when nobody has met it for a while", async (t) => {
  const notice = new LimitNotice(1000);
  t.equal(notice.meet(5), true);
  t.equal(notice.meet(6), false);
  t.equal(notice.meet(900), false);
  t.equal(notice.meet(1899), false, "quiet for less than a second");
  t.equal(notice.meet(2899), true);
});

t.test("dials in flight: over the limit a flow is reset, the log says so once, and the others go on", async (t) => {
  const lab = new Lab({ maxDials: 2 });
  const first = lab.dial();
  const second = lab.dial();
  for (let i = 0; i < 5; i++) t.same(lab.dial().done, ["reject rst"]);
  t.equal(lab.log.length, 1);
  t.match(lab.log[0], /^2 connections wait.*--max-dials/);
  t.equal(lab.sockets.all.length, 2, "no socket for those");
  lab.connected(first.tag);
  lab.answer(first.tag, METHOD_NONE);
  lab.answer(first.tag, GRANTED);
  t.same(first.done, ["accept"]);
  const third = lab.dial();
  t.same(third.done, [], "there is room again");
  t.same(lab.dial().done, ["reject rst"]);
  t.equal(lab.log.length, 1);
  lab.at(100_000);
  t.same(second.done, ["reject rst"], "no connection in time");
  t.equal(lab.limits.count, 0);
  lab.dial();
  lab.dial();
  lab.dial();
  t.equal(lab.log.filter((line) => line.includes("--max-dials")).length, 2, "news again after a quiet minute");
  t.match(lab.relay.stats(), { dialing: 2 });
});

t.test("descriptors used up: flows are reset with one line, open ones go on, and it recovers", async (t) => {
  for (const url of ["socks5://proxy.test", "direct://"]) {
    const lab = new Lab({ url });
    const open = lab.dial();
    const handle = lab.open(open);
    for (const errno of [Errno.EMFILE, Errno.ENFILE, Errno.EMFILE]) {
      lab.sockets.failWith = errno;
      t.same(lab.dial().done, ["reject rst"], url);
    }
    t.equal(lab.log.length, 1, url);
    t.match(lab.log[0], /EMFILE.*ulimit -n/);
    open.arrive([7]);
    lab.changed(open);
    t.same(lab.sockets.get(handle).written.at(-1), 7, "the open one goes on");
    const next = lab.dial();
    lab.open(next);
    t.same(next.done, ["accept"], `${url}: recovered`);
    t.equal(lab.limits.count, 0);
    t.match(lab.summaries, [{ end: "refused", reason: "no descriptors left" }, { end: "refused" }, { end: "refused" }]);
  }
});

t.test("early accept: a flow that is turned away is reset all the same", async (t) => {
  const lab = new Lab({ maxDials: 1, earlyAccept: true });
  lab.dial();
  t.same(lab.dial().done, ["reject rst"]);
});
