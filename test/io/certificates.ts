/** Certificates for one test file, made by openssl. */
import { execFileSync } from "node:child_process";
import { createHash, X509Certificate } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";

/** PEM of a certificate and its key. */
export interface Pair {
  readonly cert: string;
  readonly key: string;
}

/** SHA-256 of a certificate's DER. */
export function sha256Of(cert: string): Uint8Array {
  return createHash("sha256").update(new X509Certificate(cert).raw).digest();
}

/** An authority whose files are in a directory of the test. */
export class Authority {
  readonly pair: Pair;
  readonly #directory: string;
  readonly #name: string;

  constructor(directory: string, name: string) {
    this.#directory = directory;
    this.#name = name;
    this.pair = this.#request(name, `/CN=Authority ${name}`, ["-x509", "-days", "30"]);
  }

  /**
   * Issues a certificate.
   * @param names such as `DNS:proxy.test,IP:127.0.0.1`
   * @param dates notBefore and notAfter as openssl wants them; default from now on
   */
  issue(name: string, names: string, dates: readonly [string, string] | null = null): Pair {
    const file = (suffix: string): string => join(this.#directory, `${name}${suffix}`);
    const request = this.#request(name, `/CN=${name}`, ["-addext", `subjectAltName=${names}`]);
    const ca = join(this.#directory, this.#name);
    // Only `ca` takes dates; it wants a list of what it has issued.
    execFileSync("sh", ["-c", ': > "$1"', "sh", file(".index")]);
    const config = `[ca]\ndefault_ca=d\n[d]\ndatabase=${file(".index")}\nnew_certs_dir=${this.#directory}\nrand_serial=yes\npolicy=p\ndefault_md=sha256\ndefault_days=20\ncopy_extensions=copy\nunique_subject=no\n[p]\ncommonName=supplied\n`;
    execFileSync("sh", ["-c", 'cat > "$1"', "sh", file(".conf")], { input: config });
    const from = dates === null ? [] : ["-startdate", dates[0], "-enddate", dates[1]];
    execFileSync(
      "openssl",
      [
        ...["ca", "-batch", "-notext", "-config", file(".conf"), "-cert", `${ca}.pem`, "-keyfile", `${ca}.key`],
        ...["-in", file(".pem"), "-out", file(".crt"), ...from],
      ],
      { stdio: "pipe" },
    );
    return { cert: readFileSync(file(".crt"), "utf8"), key: request.key };
  }

  #request(name: string, subject: string, args: readonly string[]): Pair {
    const cert = join(this.#directory, `${name}.pem`);
    const key = join(this.#directory, `${name}.key`);
    const curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
    execFileSync("openssl", ["req", ...curve, "-keyout", key, "-out", cert, "-subj", subject, ...args], {
      stdio: "pipe",
    });
    return { cert: readFileSync(cert, "utf8"), key: readFileSync(key, "utf8") };
  }
}
