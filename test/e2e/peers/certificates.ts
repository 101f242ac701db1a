/** Certificates of a throw-away authority, made by openssl. */
import { execFileSync } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { type Lab, OUTER } from "../harness.ts";
import { writeFile } from "./peer.ts";

/** Files in PEM. */
export interface Certificates {
  readonly ca: string;
  readonly serverCert: string;
  readonly serverKey: string;
  readonly clientCert: string;
  readonly clientKey: string;
}

/** The authority, a certificate for {@link OUTER}'s addresses, and one for a client; made once a lab. */
export function certificates(lab: Lab): Certificates {
  const file = (name: string): string => join(lab.directory, name);
  const openssl = (...args: string[]): void => {
    execFileSync("openssl", args, { cwd: lab.directory, stdio: ["ignore", "ignore", "ignore"] });
  };
  const newKey = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
  const sign = (name: string, subject: string, extensions: string): void => {
    const extensionFile = writeFile(lab, `${name}.ext`, extensions);
    openssl("req", ...newKey, "-keyout", `${name}.key`, "-out", `${name}.csr`, "-subj", subject);
    const by = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "30"];
    openssl("x509", "-req", "-in", `${name}.csr`, ...by, "-extfile", extensionFile, "-out", `${name}.pem`);
  };
  if (!existsSync(file("client.pem"))) {
    openssl(
      "req",
      "-x509",
      ...newKey,
      "-keyout",
      "ca.key",
      "-out",
      "ca.pem",
      "-days",
      "30",
      "-subj",
      "/CN=test authority",
    );
    sign("server", "/CN=proxy", `subjectAltName=IP:${OUTER[4]},IP:${OUTER[6]}\nextendedKeyUsage=serverAuth\n`);
    sign("client", "/CN=client", "extendedKeyUsage=clientAuth\n");
  }
  return {
    ca: file("ca.pem"),
    serverCert: file("server.pem"),
    serverKey: file("server.key"),
    clientCert: file("client.pem"),
    clientKey: file("client.key"),
  };
}
