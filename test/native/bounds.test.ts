// Whatever is passed to the addon, the answer is an errno and the process lives on.
import { closeSync, openSync } from "node:fs";
import { tmpdir } from "node:os";
import t from "tap";
import { type Addon, Epoll, Errno, errnoName, TunFlag } from "../../src/io/addon.ts";
import { addonForTest, LOOPBACK, Memory } from "./memory.ts";
import { inNamespace, skipOrFail } from "./namespace.ts";
import { setUp } from "./rtnetlink.ts";

type Native = (...args: readonly unknown[]) => number;

const SIZE = 256 * 1024;
const INT_MAX = 0x7fff_ffff;
const INT_MIN = -0x8000_0000;

/** What one argument means, and with it which values of it are bad. */
type Kind = "fd" | "slab" | "words" | "bytes" | "limit" | "any" | { bad: readonly (readonly [number, number])[] };

interface Row {
  readonly name: keyof Addon;
  readonly args: readonly (readonly [kind: Kind, good: number])[];
  /** The result of the good call, when it is the same everywhere. */
  readonly result?: number;
}

const bad = (errno: number, ...values: number[]): Kind => ({ bad: values.map((value) => [value, errno] as const) });
const badCount = bad(Errno.EINVAL, 0, -1, 1025, INT_MAX, INT_MIN);

inNamespace(import.meta.url, () => {
  const addon = addonForTest();
  const memory = new Memory(addon, SIZE);
  setUp(addon, memory, "lo", []);
  memory.bytes.fill(0);
  addon.pollerOpen(() => {});
  addon.pollerRef(0);

  // Descriptors: a socket of each kind, a closed one, and one that is not the addon's.
  const UDP_DESC = 1024;
  memory.put(UDP_DESC, [4, 0, ...LOOPBACK[4], 0, 0, -1, -1, 0, 0, 0, 0, 0]);
  const udp = addon.udpOpen(memory.id, UDP_DESC);
  const closed = addon.udpOpen(memory.id, UDP_DESC);
  addon.close(closed);
  const foreign = openSync(tmpdir(), "r");
  const TUN_NAME = 2048;
  const NEW_NAME = 2080;
  const tun = addon.tunOpen(memory.id, TUN_NAME, TunFlag.TUN | TunFlag.NO_PI | TunFlag.VNET_HDR);
  const hasTun = tun >= 0;
  if (!hasTun) skipOrFail("TUN functions", `opening the TUN device node gave ${errnoName(tun)}`);
  const TCP_DESC = 3072;
  memory.put(TCP_DESC, [4, 9, ...LOOPBACK[4], 0, 0, -1, -1, 0, 0, 0, 0, 0]);

  // Lists that the good calls use. The TUN interface is down, so nothing is ever sent.
  const TUN_WRITE = 4096;
  memory.put(TUN_WRITE, [1, 0, 40]);
  const STREAM_READ = 5120;
  memory.put(STREAM_READ, [udp, 0, 0, 0]);
  const STREAM_WRITE = 6144;
  memory.put(STREAM_WRITE, [udp, 0, 1, 0, 0, 0]);
  const UDP_WRITE = 7168;
  const BUFFER = 65536;
  const LIMIT = SIZE - 4096;
  const META = SIZE - 4096;

  const allRows: readonly Row[] = [
    { name: "abi", args: [], result: 2 },
    { name: "unregisterSlab", args: [[bad(Errno.EBADF, -1, 15, 16, INT_MAX, INT_MIN), 9]], result: -Errno.EBADF },
    { name: "adoptFd", args: [[bad(Errno.EINVAL, 0, 1, 2), udp]], result: -Errno.EEXIST },
    { name: "adoptFd", args: [[bad(Errno.EBADF, -1, INT_MIN, INT_MAX, 100_000), udp]], result: -Errno.EEXIST },
    { name: "copyFd", args: [[bad(Errno.EINVAL, 0, 1, 2), udp]] },
    { name: "copyFd", args: [[bad(Errno.EBADF, -1, INT_MIN, INT_MAX, 100_000), foreign]] },
    { name: "releaseFd", args: [["fd", closed]], result: -Errno.EBADF },
    { name: "close", args: [["fd", closed]], result: -Errno.EBADF },
    {
      name: "tunOpen",
      args: [
        ["slab", memory.id],
        ["bytes", NEW_NAME],
        [bad(Errno.EINVAL, 0, 3, 0x1000, 0x2001, 0x5003, -1, INT_MIN, INT_MAX, 0x10001), 0x1001],
      ],
    },
    { name: "tunGetFeatures", args: [["fd", tun]] },
    {
      name: "tunSetVnetHdrSize",
      args: [
        ["fd", tun],
        [bad(Errno.EINVAL, 9, 0, -1, INT_MIN), 10],
      ],
      result: 0,
    },
    {
      name: "tunSetOffload",
      args: [
        ["fd", tun],
        [bad(Errno.EINVAL, 2, 0x21, -1, INT_MIN, 0x4000_0000), 7],
      ],
      result: 0,
    },
    {
      name: "tunSetSendBuffer",
      args: [
        ["fd", tun],
        [bad(Errno.EINVAL, 0, -1, INT_MIN), INT_MAX],
      ],
      result: 0,
    },
    {
      name: "tunGetIff",
      args: [
        ["fd", tun],
        ["slab", memory.id],
        ["bytes", TUN_NAME],
      ],
    },
    {
      name: "tunSetPersist",
      args: [
        ["fd", tun],
        [bad(Errno.EINVAL, 2, -1, INT_MAX), 0],
      ],
      result: 0,
    },
    {
      name: "tunRead",
      args: [
        ["fd", tun],
        ["slab", memory.id],
        ["bytes", BUFFER],
        ["limit", LIMIT],
        [bad(Errno.EINVAL, 0, -1, INT_MIN), 66000],
        ["words", META],
        [badCount, 16],
      ],
      result: 0,
    },
    {
      name: "tunWrite",
      args: [
        ["fd", tun],
        ["slab", memory.id],
        ["words", TUN_WRITE],
        [bad(Errno.EFAULT, -1, INT_MIN, INT_MAX, SIZE - TUN_WRITE + 4), 12],
        [bad(Errno.EINVAL, -1, INT_MIN), 0],
      ],
      result: 0,
    },
    { name: "pollerRef", args: [[bad(Errno.EINVAL, 2, -1, INT_MAX), 0]], result: 0 },
    {
      name: "pollerAdd",
      args: [
        ["fd", udp],
        [bad(Errno.EINVAL, 0x1000_0000, 0x40, -1, INT_MAX), Epoll.IN],
        ["any", 1],
        ["any", 2],
      ],
    },
    {
      name: "pollerModify",
      args: [
        ["fd", udp],
        [bad(Errno.EINVAL, 0x1000_0000, 0x40, -1), Epoll.IN | Epoll.ET],
        ["any", 1],
        ["any", 2],
      ],
      result: 0,
    },
    { name: "pollerDelete", args: [["fd", udp]], result: 0 },
    {
      name: "pollerWait",
      args: [
        ["slab", memory.id],
        ["words", META],
        [badCount, 16],
        [bad(Errno.EINVAL, -2, 1001, INT_MAX, INT_MIN), 0],
      ],
      result: 0,
    },
    {
      name: "tcpConnect",
      args: [
        ["slab", memory.id],
        ["words", TCP_DESC],
      ],
      result: -Errno.ECONNREFUSED,
    },
    {
      name: "streamRead",
      args: [
        ["slab", memory.id],
        ["words", STREAM_READ],
        [bad(Errno.EINVAL, -1, INT_MIN), 1],
        ["bytes", BUFFER],
        ["limit", LIMIT],
        [bad(Errno.EINVAL, 0, -1, INT_MIN), 65536],
        [bad(Errno.EINVAL, 0, -1, INT_MIN), 1],
      ],
      result: 1,
    },
    {
      name: "streamWrite",
      args: [
        ["slab", memory.id],
        ["words", STREAM_WRITE],
        [bad(Errno.EFAULT, -1, INT_MIN, INT_MAX, SIZE - STREAM_WRITE + 4), 24],
        [bad(Errno.EINVAL, -1, INT_MIN), 1],
      ],
      result: 1,
    },
    {
      name: "socketShutdown",
      args: [
        ["fd", udp],
        [bad(Errno.EINVAL, -1, 3, INT_MAX), 0],
      ],
      result: -Errno.ENOTCONN,
    },
    { name: "socketReset", args: [["fd", closed]], result: -Errno.EBADF },
    { name: "socketReset", args: [["fd", tun]], result: -Errno.ENOTSOCK },
    { name: "socketError", args: [["fd", udp]], result: 0 },
    {
      name: "socketName",
      args: [
        ["fd", udp],
        [bad(Errno.EINVAL, -1, 2, INT_MAX), 0],
        ["slab", memory.id],
        ["words", META],
      ],
      result: 0,
    },
    {
      name: "setOption",
      args: [
        ["fd", udp],
        ["any", 1],
        ["any", 8],
        ["any", 65536],
      ],
      result: 0,
    },
    {
      name: "getOption",
      args: [
        ["fd", udp],
        ["any", 1],
        ["any", 3],
      ],
      result: 2,
    },
    {
      name: "udpOpen",
      args: [
        ["slab", memory.id],
        ["words", UDP_DESC],
      ],
    },
    {
      name: "udpRead",
      args: [
        ["fd", udp],
        ["slab", memory.id],
        ["bytes", BUFFER],
        ["limit", LIMIT],
        ["words", META],
        [badCount, 16],
      ],
      result: 0,
    },
    {
      name: "udpReadError",
      args: [
        ["fd", udp],
        ["slab", memory.id],
        ["words", META],
      ],
      result: 0,
    },
    {
      name: "udpWrite",
      args: [
        ["fd", udp],
        ["slab", memory.id],
        ["words", UDP_WRITE],
        [bad(Errno.EFAULT, -1, INT_MIN, INT_MAX, SIZE - UDP_WRITE + 4), 32],
        [bad(Errno.EINVAL, -1, INT_MIN), 0],
      ],
      result: 0,
    },
    {
      name: "netlink",
      args: [
        ["slab", memory.id],
        ["bytes", BUFFER],
        [bad(Errno.EFAULT, -1, INT_MIN, INT_MAX, SIZE), 0],
        [bad(Errno.EFAULT, -1, INT_MIN, INT_MAX, SIZE), 4096],
      ],
      result: -Errno.EINVAL,
    },
  ];

  const usesTun = (row: Row) =>
    row.name === "tunOpen" || row.args.some(([kind, good]) => kind === "fd" && good === tun);
  const rows = allRows.filter((row) => hasTun || !usesTun(row));

  /** The bad values of one argument with the error each gives. */
  function badValues(kind: Kind): readonly (readonly [unknown, number])[] {
    if (typeof kind === "object") return kind.bad;
    switch (kind) {
      case "fd":
        return [-1, INT_MIN, 0, 1, closed, foreign, 100_000, INT_MAX].map((fd) => [fd, Errno.EBADF] as const);
      case "slab":
        return [-1, INT_MIN, memory.id + 1, 15, 16, INT_MAX].map((id) => [id, Errno.EBADF] as const);
      case "words":
        return [
          ...[-1, -4, INT_MIN, SIZE, SIZE - 3, INT_MAX, INT_MAX - 3].map((off) => [off, Errno.EFAULT] as const),
          ...[8193, 8194, 8195].map((off) => [off, Errno.EINVAL] as const),
        ];
      case "bytes":
        return [-1, INT_MIN, SIZE + 1, INT_MAX].map((off) => [off, Errno.EFAULT] as const);
      case "limit":
        return [-1, INT_MIN, 0, BUFFER - 1, SIZE + 1, INT_MAX].map((limit) => [limit, Errno.EFAULT] as const);
      case "any":
        return [];
    }
  }

  const wrongTypes: readonly unknown[] = [
    undefined,
    null,
    "1",
    "",
    Number.NaN,
    Number.POSITIVE_INFINITY,
    0.5,
    2 ** 31,
    -(2 ** 31) - 1,
    2 ** 53,
    1n,
    true,
    {},
    [],
    [1],
    Symbol("1"),
    () => 1,
    new Date(0),
    new ArrayBuffer(8),
    { valueOf: () => 1 },
    new Proxy({}, {}),
  ];

  const show = (errno: number): string => (errno < 0 ? `-${errnoName(errno)}` : String(errno));

  for (const row of rows) {
    t.test(`${row.name}: every bad argument is an errno`, (t) => {
      const call: Native = (addon[row.name] as Native).bind(addon);
      const good = row.args.map(([, value]) => value);
      const opened: number[] = [];
      const result = call(...good);
      if (row.result !== undefined) t.equal(show(result), show(row.result), "the good call");
      else t.ok(result >= 0, `the good call gives ${show(result)}`);
      if (/^(tunOpen|udpOpen|copyFd)$/.test(row.name)) opened.push(result);
      for (const [i, [kind]] of row.args.entries()) {
        for (const [value, errno] of badValues(kind)) {
          const got = call(...good.with(i, value as number));
          t.equal(show(got), show(-errno), `argument ${i} = ${String(value)}`);
        }
        for (const value of wrongTypes) {
          const args: unknown[] = good.with(i, 0);
          args[i] = value;
          t.equal(show(call(...args)), show(-Errno.EINVAL), `argument ${i} of type ${typeof value}`);
        }
        t.equal(show(call(...good.slice(0, i))), show(-Errno.EINVAL), `${i} arguments`);
      }
      for (const fd of opened) t.equal(addon.close(fd), 0);
      t.end();
    });
  }

  t.test("registerSlab takes ArrayBuffers only, sixteen at a time", (t) => {
    const register = addon.registerSlab as Native;
    for (const value of [undefined, null, 1, "x", {}, new Uint8Array(8), new SharedArrayBuffer(8), () => 0]) {
      t.equal(register(value), -Errno.EINVAL, typeof value);
    }
    t.equal(register(), -Errno.EINVAL, "no argument");
    const ids = Array.from({ length: 15 }, () => addon.registerSlab(new ArrayBuffer(8)));
    t.strictSame(
      [...ids].sort(),
      Array.from({ length: 16 }, (_, i) => i)
        .filter((id) => id !== memory.id)
        .sort(),
    );
    t.equal(addon.registerSlab(new ArrayBuffer(8)), -Errno.ENOSPC);
    for (const id of ids) t.equal(addon.unregisterSlab(id), 0);
    t.equal(addon.unregisterSlab(ids[0] ?? -1), -Errno.EBADF, "twice");
    t.end();
  });

  t.test("pollerOpen takes functions only, one at a time", (t) => {
    const open = addon.pollerOpen as Native;
    for (const value of [undefined, null, 1, "x", {}]) t.equal(open(value), -Errno.EINVAL, typeof value);
    t.equal(open(), -Errno.EINVAL, "no argument");
    t.equal(
      addon.pollerOpen(() => {}),
      -Errno.EEXIST,
    );
    t.end();
  });

  t.test("without a poller its functions say ENXIO and nothing is opened", (t) => {
    t.equal(addon.pollerClose(), 0);
    t.equal(addon.pollerClose(), -Errno.ENXIO);
    t.equal(addon.pollerRef(1), -Errno.ENXIO);
    t.equal(addon.pollerAdd(udp, Epoll.IN, 0, 0), -Errno.ENXIO);
    t.equal(addon.pollerModify(udp, Epoll.IN, 0, 0), -Errno.ENXIO);
    t.equal(addon.pollerDelete(udp), -Errno.ENXIO);
    t.equal(addon.pollerWait(memory.id, META, 1, 0), -Errno.ENXIO);
    memory.put(UDP_DESC + 36, [7]);
    t.equal(addon.udpOpen(memory.id, UDP_DESC), -Errno.ENXIO);
    t.equal(addon.tcpConnect(memory.id, UDP_DESC), -Errno.ENXIO);
    memory.put(UDP_DESC + 36, [-1]);
    t.equal(
      addon.pollerOpen(() => {}),
      0,
    );
    t.equal(addon.pollerRef(0), 0);
    t.end();
  });

  t.test("a detached slab has no bytes", (t) => {
    const gone = new Memory(addon, SIZE);
    structuredClone(gone.buffer, { transfer: [gone.buffer] });
    for (const row of rows) {
      const at = row.args.findIndex(([kind]) => kind === "slab");
      if (at < 0) continue;
      const args = row.args.map(([, value]) => value).with(at, gone.id);
      t.equal(show((addon[row.name] as Native)(...args)), "-EFAULT", row.name);
    }
    t.equal(addon.unregisterSlab(gone.id), 0);
    t.end();
  });

  t.test("a resized slab has the size of now", { skip: !("resize" in ArrayBuffer.prototype) }, (t) => {
    // ES2024, hence not in the library types in use.
    const make = ArrayBuffer as unknown as new (n: number, o: object) => ArrayBuffer & { resize(n: number): void };
    const buffer = new make(4096, { maxByteLength: 8192 });
    const id = addon.registerSlab(buffer);
    t.equal(addon.pollerWait(id, 8180, 1, 0), -Errno.EFAULT);
    buffer.resize(8192);
    t.equal(addon.pollerWait(id, 8180, 1, 0), 0);
    buffer.resize(16);
    t.equal(addon.pollerWait(id, 4, 1, 0), 0);
    t.equal(addon.pollerWait(id, 8, 1, 0), -Errno.EFAULT);
    t.equal(addon.unregisterSlab(id), 0);
    t.end();
  });

  t.test("descriptors of a socket to open", (t) => {
    const NAME = 9000;
    memory.text(NAME, "lo");
    memory.bytes.fill(120, 9100, 9116);
    const good = [4, 9, ...LOOPBACK[4], 0, 0, -1, -1, 0, 0, 0, 0, 0];
    memory.put(10_060, [0, 0, 0, 0]);
    const cases: readonly (readonly [string, number, number, number, number?])[] = [
      ["family 0", 0, 0, Errno.EINVAL],
      ["family 5", 0, 5, Errno.EINVAL],
      ["family -1", 0, -1, Errno.EINVAL],
      ["port -1", 1, -1, Errno.EINVAL],
      ["port 65536", 1, 65536, Errno.EINVAL],
      ["interface name before the slab", 8, -2, Errno.EFAULT],
      ["interface name past the end", 8, SIZE - 15, Errno.EFAULT],
      ["interface name far past the end", 8, INT_MAX, Errno.EFAULT],
      ["interface name without NUL", 8, 9100, Errno.EINVAL],
    ];
    for (const [name, word, value, errno] of cases) {
      for (const open of ["tcpConnect", "udpOpen"] as const) {
        memory.put(10_000, good.with(word, value));
        t.equal(show(addon[open](memory.id, 10_000)), show(-errno), `${open}: ${name}`);
      }
    }
    // Unix sockets: offset and length of a path instead of an address. `good` leaves the words of keep-alive at 0.
    const PATH = 9200;
    memory.bytes.fill(120, PATH, PATH + 200);
    memory.bytes[PATH + 100] = 0;
    memory.bytes[PATH + 150] = 0;
    const paths: readonly (readonly [string, number, number, number])[] = [
      ["no path", PATH, 0, Errno.EINVAL],
      ["length -1", PATH, -1, Errno.EINVAL],
      ["length INT_MIN", PATH, INT_MIN, Errno.EINVAL],
      ["before the slab", -1, 4, Errno.EFAULT],
      ["past the end", SIZE - 3, 4, Errno.EFAULT],
      ["far past the end", INT_MAX, INT_MAX, Errno.EFAULT],
      ["one byte too long", PATH, 109, Errno.ENAMETOOLONG],
      ["a zero in the middle", PATH, 108, Errno.EINVAL],
      ["a path where nothing is", PATH, 100, Errno.ENOENT],
      ["an abstract name that nobody has", PATH + 100, 20, Errno.ECONNREFUSED],
      ["the longest abstract name, with a zero in it", PATH + 100, 80, Errno.ECONNREFUSED],
    ];
    for (const [name, off, len, errno] of paths) {
      memory.put(10_000, [1, 0, off, len, 0, 0, 0, 1, INT_MAX, -1, 0, 0, 0, 0, 0, -1, -1, -1, -1]);
      t.equal(show(addon.tcpConnect(memory.id, 10_000)), show(-errno), `tcpConnect: ${name}`);
    }
    memory.put(10_000, [1, 0, PATH, 20, 0, 0, 0, 0, -1, -1, 0, 0]);
    t.equal(show(addon.udpOpen(memory.id, 10_000)), "-EINVAL", "udpOpen: no Unix sockets");
    const keepAlive: readonly (readonly [string, readonly number[]])[] = [
      ["idle -1", [-1, 1, 1, 0]],
      ["idle 32768", [32_768, 1, 1, 0]],
      ["interval 0", [1, 0, 1, 0]],
      ["interval INT_MAX", [1, INT_MAX, 1, 0]],
      ["probes 0", [1, 1, 0, 0]],
      ["probes 128", [1, 1, 128, 0]],
      ["user timeout -1", [0, 0, 0, -1]],
    ];
    for (const [name, words] of keepAlive) {
      memory.put(10_000, [...good, ...words]);
      t.equal(show(addon.tcpConnect(memory.id, 10_000)), "-EINVAL", `tcpConnect: keep-alive ${name}`);
    }
    memory.put(10_000, [...good, 32_767, 32_767, 127, INT_MAX]);
    t.equal(show(addon.tcpConnect(memory.id, 10_000)), "-ECONNREFUSED", "tcpConnect: the longest keep-alive");
    memory.put(10_000, good.with(11, 8));
    t.equal(show(addon.udpOpen(memory.id, 10_000)), "-EINVAL", "udpOpen: unknown flag");
    const data: readonly (readonly [number, number])[] = [
      [0, -1],
      [0, INT_MIN],
      [-1, 1],
      [SIZE, 1],
      [SIZE - 1, 2],
      [INT_MAX, INT_MAX],
      [1, INT_MAX],
    ];
    for (const [off, len] of data) {
      memory.put(10_000, good.with(11, off).with(12, len));
      t.equal(show(addon.tcpConnect(memory.id, 10_000)), "-EFAULT", `tcpConnect: data [${off}, ${len}]`);
    }
    t.end();
  });

  t.test("entries of write lists", (t) => {
    const LIST = 12_000;
    const device = hasTun ? tun : udp; // nothing gets as far as the write
    const pieces: readonly (readonly [number, number])[] = [
      [-1, 1],
      [0, -1],
      [SIZE, 1],
      [SIZE - 1, 2],
      [INT_MAX, 1],
      [INT_MAX, INT_MAX],
      [INT_MIN, INT_MIN],
    ];
    for (const [off, len] of pieces) {
      memory.put(LIST, [1, off, len]);
      t.equal(show(addon.tunWrite(device, memory.id, LIST, 12, 1)), "-EFAULT", `tunWrite [${off}, ${len}]`);
      memory.put(LIST, [udp, 0, 1, 77, off, len, udp, 0, 0, 77]);
      t.equal(addon.streamWrite(memory.id, LIST, 40, 2), 2, "the list is walked to its end");
      t.equal(show(memory.word(LIST + 12)), "-EFAULT", `streamWrite [${off}, ${len}]`);
      t.equal(memory.word(LIST + 36), 0, "the entry behind it");
      memory.put(LIST, [1, 4, 9, ...LOOPBACK[4], 0, off, len]);
      t.equal(show(addon.udpWrite(udp, memory.id, LIST, 40, 1)), "-EFAULT", `udpWrite [${off}, ${len}]`);
    }
    for (const niov of [0, -1, 65, 2, INT_MAX, INT_MIN]) {
      memory.put(LIST, [niov, 0, 0]);
      t.equal(show(addon.tunWrite(device, memory.id, LIST, 12, 1)), "-EINVAL", `tunWrite: ${niov} pieces`);
    }
    for (const niov of [-1, 257, 2, INT_MAX, INT_MIN]) {
      memory.put(LIST, [udp, 0, niov, 0, 0, 0]);
      t.equal(show(addon.streamWrite(memory.id, LIST, 24, 1)), "-EINVAL", `streamWrite: ${niov} pieces`);
      t.equal(show(memory.word(LIST + 12)), "-EINVAL");
      memory.put(LIST, [niov === 257 ? 65 : niov, 4, 9, ...LOOPBACK[4], 0, 0, 0]);
      t.equal(show(addon.udpWrite(udp, memory.id, LIST, 40, 1)), "-EINVAL", `udpWrite: ${niov} pieces`);
    }
    for (const len of [0, 3, 4, 8, 11]) {
      memory.put(LIST, [1, 0, 0]);
      t.equal(show(addon.tunWrite(device, memory.id, LIST, len, 1)), "-EINVAL", `tunWrite: list of ${len} bytes`);
      memory.put(LIST, [udp, 0, 1, 0, 0, 0]);
      t.equal(show(addon.streamWrite(memory.id, LIST, len, 1)), "-EINVAL", `streamWrite: list of ${len} bytes`);
      t.equal(show(addon.udpWrite(udp, memory.id, LIST, len, 1)), "-EINVAL", `udpWrite: list of ${len} bytes`);
    }
    const udpEntry = [1, 4, 9, ...LOOPBACK[4], 0, 0, 0];
    const words: readonly (readonly [string, number, number])[] = [
      ["family", 1, 5],
      ["family", 1, -1],
      ["port", 2, -1],
      ["port", 2, 65536],
      ["segment size", 7, -1],
      ["segment size", 7, 65536],
    ];
    for (const [name, word, value] of words) {
      memory.put(LIST, udpEntry.with(word, value));
      t.equal(show(addon.udpWrite(udp, memory.id, LIST, 40, 1)), "-EINVAL", `udpWrite: ${name} ${value}`);
    }
    for (const fd of [-1, 0, closed, foreign, INT_MAX, INT_MIN]) {
      memory.put(LIST, [fd, 0, 0, 0, fd, 1, 0, 0]);
      t.equal(addon.streamWrite(memory.id, LIST, 32, 2), 2);
      t.strictSame(
        [memory.word(LIST + 12), memory.word(LIST + 28)],
        [-Errno.EBADF, -Errno.EBADF],
        `streamWrite: ${fd}`,
      );
      memory.put(LIST, [fd, 0, 0, 0]);
      t.equal(addon.streamRead(memory.id, LIST, 1, BUFFER, LIMIT, 65536, 1), 1);
      t.equal(show(memory.word(LIST + 4)), "-EBADF", `streamRead: ${fd}`);
    }
    memory.put(LIST, [udp, 4, 0, 0]);
    t.equal(addon.streamWrite(memory.id, LIST, 16, 1), 1);
    t.equal(show(memory.word(LIST + 12)), "-EINVAL", "streamWrite: unknown flag");
    t.equal(addon.streamRead(memory.id, LIST, 1, BUFFER, BUFFER + 99, 65536, 100), 0, "too little room: no entry");
    t.end();
  });

  t.test("a name without NUL is refused by tunOpen", (t) => {
    memory.bytes.fill(97, 9100, 9116);
    t.equal(show(addon.tunOpen(memory.id, 9100, TunFlag.TUN)), "-EINVAL");
    t.equal(show(addon.tunOpen(memory.id, SIZE - 15, TunFlag.TUN)), "-EFAULT");
    t.end();
  });

  // Any integers in the arguments and in memory. Functions that block, take descriptors over or reconfigure the
  // namespace are left to the tables above.
  t.test("random calls return an int32", (t) => {
    const left = new Set<keyof Addon>(["registerSlab", "unregisterSlab", "adoptFd", "copyFd", "releaseFd", "netlink"]);
    for (const name of ["pollerOpen", "pollerClose", "pollerRef", "pollerWait", "tunSetPersist"] as const)
      left.add(name);
    const names = (Object.keys(addon) as (keyof Addon)[]).filter((name) => !left.has(name));
    const small = new Memory(addon, 4096);
    let seed = 20_261_122;
    const random = (n: number): number => {
      seed = (Math.imul(seed, 1_664_525) + 1_013_904_223) | 0;
      return (seed >>> 8) % n;
    };
    const odd = [0, 1, 2, 3, 4, 6, 8, 10, 16, 40, 64, 256, 1024, 2048, 4000, 4092, 4096, 4097, 65536];
    odd.push(-1, -2, INT_MAX, INT_MIN, udp, tun, closed, small.id, 0x1001, 0x5001, 0x40, Epoll.ET);
    const pick = (): number => (random(8) === 0 ? seed : (odd[random(odd.length)] ?? 0));
    const opened = new Set<number>();
    for (let round = 0; round < 60_000; round++) {
      const name = names[random(names.length)] ?? "abi";
      if (random(4) === 0) for (let i = 0; i < 64; i++) small.words[random(1024)] = pick();
      const args = Array.from({ length: 7 }, pick);
      // Half of the time the handles are right, so that the call gets further.
      if (random(2) === 0 && /^(tun|udp)[A-Z]/.test(name))
        args.splice(0, 2, name.startsWith("tun") ? tun : udp, small.id);
      if (random(2) === 0 && /^(stream|tcp)/.test(name)) args.splice(0, 2, small.id, random(1024) * 4);
      // The sockets at hand stay open, the rest is closed at once.
      if (/^(close|socketReset)$/.test(name) && (args[0] === udp || args[0] === tun)) continue;
      const result = (addon[name] as Native)(...args);
      if (!Number.isInteger(result) || (result | 0) !== result) t.fail(`${name}(${args.join()}) returned ${result}`);
      if (/^(tunOpen|tcpConnect|udpOpen)$/.test(name) && result >= 0) {
        opened.add(result);
        addon.close(result);
      }
    }
    t.comment(`${opened.size} different descriptors were opened`);
    t.equal(addon.abi(), 2, "alive");
    addon.unregisterSlab(small.id);
    t.end();
  });

  t.teardown(() => {
    addon.close(udp);
    addon.close(tun);
    addon.pollerClose();
    closeSync(foreign);
  });
});
