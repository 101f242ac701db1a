/** The limits of ICMP errors: in all, to one client, and that nobody can count them. Behaviours 113 and 114. */
import t from "tap";
import { drops, FAMILIES } from "./ip-kit.ts";
import { type Family, ipPacket, Kit, SERVER } from "./kit.ts";

/** A client by number; IPv6 clients of different networks. */
function client(family: Family, n: number): Uint8Array {
  if (family === 4) return Uint8Array.of(10, 1, n >>> 8, n);
  return Uint8Array.of(0xfd, 0, 0, 1, 0, 0, n >>> 8, n, 0, 0, 0, 0, 0, 0, 0, 1);
}

/** Sends `count` packets of a protocol that nobody speaks; returns how many errors came back. */
function provoke(kit: Kit, source: Uint8Array, count: number): number {
  const packet = ipPacket({ source, destination: SERVER[kit.family], protocol: 200 }, new Uint8Array(8));
  for (let i = 0; i < count; i++) kit.deliver(packet.slice());
  return kit.takeOut().length;
}

for (const family of FAMILIES) {
  t.test(
    `IPv${family}: a client has half of all errors, refilled over time (RFC 1812 §4.3.2.8, RFC 4443 §2.4 f)`,
    (t) => {
      const kit = new Kit({ family });
      const first = provoke(kit, client(family, 1), 2000);
      t.ok(first > 450 && first < 550, `${first} of the burst of 500`);
      t.equal(drops(kit)["icmpRateLimit"], 2000 - first);
      t.equal(drops(kit)["ipProtocol"], 2000, "dropped they are in any case");
      const second = provoke(kit, client(family, 2), 300);
      t.ok(second > 250, `another client still gets ${second} of 300`);
      kit.advance(kit.now + 200);
      const refilled = provoke(kit, client(family, 1), 500);
      t.ok(refilled > 70 && refilled < 130, `${refilled}: 100 in 200 ms`);
      kit.advance(kit.now + 60_000);
      const full = provoke(kit, client(family, 1), 2000);
      t.ok(full > 450 && full < 550, `${full}: the bucket does not overflow`);
      kit.finish();
      t.end();
    },
  );

  t.test(`IPv${family}: many clients together have 1,000 a second`, (t) => {
    const kit = new Kit({ family });
    let sent = 0;
    for (let n = 0; n < 500; n++) sent += provoke(kit, client(family, n), 10);
    t.ok(sent > 930 && sent < 1070, `${sent} errors for 500 clients`);
    kit.advance(kit.now + 100);
    let more = 0;
    for (let n = 0; n < 500; n++) more += provoke(kit, client(family, n), 10);
    t.ok(more > 80 && more < 120, `${more}: 100 in 100 ms`);
    kit.finish();
    t.end();
  });

  t.test(`IPv${family}: how many are left cannot be told from how many came (CVE-2020-25705)`, (t) => {
    const counts = new Set<number>();
    for (let seed = 1; seed <= 20; seed++) {
      const kit = new Kit({ family, seed });
      counts.add(provoke(kit, client(family, 1), 700));
      kit.finish();
    }
    t.ok(counts.size > 5, `different numbers for the same question: ${[...counts].sort((a, b) => a - b)}`);
    t.end();
  });
}

t.test("IPv6: addresses of one network are one client", (t) => {
  const kit = new Kit({ family: 6 });
  let sent = 0;
  for (let n = 0; n < 1000; n++) {
    const source = client(6, 1);
    source.set([n >>> 8, n], 14);
    source[13] = 1;
    sent += provoke(kit, source, 1);
  }
  t.ok(sent > 450 && sent < 550, `${sent} of 1,000`);
  kit.finish();
  t.end();
});

t.test("a full queue loses the error, nothing else", (t) => {
  const kit = new Kit({ manual: true });
  const packet = ipPacket({ source: client(4, 1), destination: SERVER[4], protocol: 200 }, new Uint8Array(8));
  const echo = ipPacket(
    { source: client(4, 1), destination: SERVER[4], protocol: 1 },
    Uint8Array.of(8, 0, 0xf7, 0xff, 0, 0, 0, 0),
  );
  for (let i = 0; i < 1024; i++) kit.deliver(echo.slice());
  t.equal(kit.deliver(packet.slice()), false);
  t.same(drops(kit), { ipProtocol: 1 });
  kit.take();
  t.equal(kit.takeOut().length, 1024);
  kit.finish();
  t.end();
});
