/** TLS towards a proxy, as read from URL and options. Files are read before: these are contents. */
export interface TlsSettings {
  /** Name for SNI (RFC 6066 §3) and for checking the certificate; an address is checked against its iPAddress names. */
  readonly serverName: string;
  /** PEM of the only authorities that are trusted; null for those of Node and the system. */
  readonly ca: string | null;
  /** SHA-256 of the server's certificate (DER), 32 bytes: it alone decides, whoever signed it. Null for none. */
  readonly pinSha256: Uint8Array | null;
  /** PEM of the client's certificate and key; null for none. */
  readonly cert: string | null;
  readonly key: string | null;
}
