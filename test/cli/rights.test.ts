import t from "tap";
import { checkSocketRights } from "../../src/cli/rights.ts";
import { type Addon, Errno } from "../../src/io/addon.ts";

/** An addon whose `udpOpen` refuses a mark or an interface as a kernel does; what it was asked for goes to `asked`. */
function refusing(errno: number, asked: string[] = []): Addon {
  let words = new Int32Array(0);
  const addon: Partial<Addon> = {
    registerSlab: (buffer) => {
      words = new Int32Array(buffer);
      return 0;
    },
    unregisterSlab: () => 0,
    udpOpen: () => {
      const [family, port] = words;
      const name =
        words[8] === -1
          ? ""
          : Buffer.from(words.buffer, words[8] ?? 0, 16)
              .toString()
              .replace(/\0.*$/s, "");
      asked.push(`${family} ${port} mark ${(words[7] ?? 0) >>> 0} name ${name} token ${words[9]}`);
      return errno === 0 ? 7 : -errno;
    },
    close: (fd) => {
      asked.push(`close ${fd}`);
      return 0;
    },
  };
  return addon as Addon;
}

t.test("checkSocketRights: one socket for each wish, closed at once", async (t) => {
  const asked: string[] = [];
  checkSocketRights(refusing(0, asked), { mark: 0xffff_fffe, oif: "fifteen-letters" });
  t.same(asked, [
    "4 0 mark 4294967294 name  token -1",
    "close 7",
    "4 0 mark 0 name fifteen-letters token -1",
    "close 7",
  ]);
  asked.length = 0;
  checkSocketRights(refusing(Errno.EPERM, asked), { mark: 0, oif: null });
  t.same(asked, [], "nothing is asked where nothing is wished");
});

t.test("checkSocketRights: what the kernel refuses is said with option and remedy", async (t) => {
  for (const { errno, mark, oif, exitCode, message } of [
    {
      ...{ errno: Errno.EPERM, mark: 100, oif: null, exitCode: 77 },
      message:
        "--fwmark 100: marking packets needs CAP_NET_ADMIN (EPERM); run as root or give the container --cap-add NET_ADMIN",
    },
    {
      ...{ errno: Errno.EPERM, mark: 0, oif: "eth0", exitCode: 77 },
      message:
        "--interface eth0: binding to an interface needs CAP_NET_RAW here (EPERM); run as root or give the container --cap-add NET_RAW",
    },
    {
      ...{ errno: 92, mark: 100, oif: null, exitCode: 71 },
      message: "--fwmark 100: the kernel refused it on a socket (ENOPROTOOPT); leave it out",
    },
  ]) {
    t.throws(() => checkSocketRights(refusing(errno), { mark, oif }), { exitCode, message });
  }
});
