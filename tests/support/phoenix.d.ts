/** What the tests use of npm `phoenix`, 1.5 to 1.8: it ships no types. */
// deno-lint-ignore-file no-explicit-any
export interface Push {
  receive(status: "ok" | "error" | "timeout", callback: (response: any) => void): Push;
}

export interface Channel {
  readonly topic: string;
  readonly state: "closed" | "errored" | "joined" | "joining" | "leaving";
  readonly rejoinTimer: { reset(): void };
  join(timeout?: number): Push;
  leave(timeout?: number): Push;
  push(event: string, payload: object, timeout?: number): Push;
  on(event: string, callback: (payload: any) => void): number;
  off(event: string, ref?: number): void;
  onClose(callback: (reason: any) => void): void;
  onError(callback: (reason: any) => void): void;
}

export interface SocketOptions {
  params?: object | (() => object);
  /** Since 1.8. */
  authToken?: string;
  heartbeatIntervalMs?: number;
  reconnectAfterMs?: (tries: number) => number;
  rejoinAfterMs?: (tries: number) => number;
}

export class Socket {
  constructor(endPoint: string, options?: SocketOptions);
  readonly conn: WebSocket | null;
  readonly channels: Channel[];
  connect(): void;
  disconnect(callback?: () => void): void;
  isConnected(): boolean;
  channel(topic: string, params?: object): Channel;
  onOpen(callback: () => void): unknown;
  onClose(callback: (event: CloseEvent) => void): unknown;
  onError(callback: (error: unknown) => void): unknown;
  onMessage(callback: (message: { topic: string; event: string; payload: any; ref: string | null }) => void): unknown;
}

export interface Here {
  metas: any[];
}

export class Presence {
  constructor(channel: Channel);
  onJoin(callback: (id: string, current: Here | undefined, joined: Here) => void): void;
  onLeave(callback: (id: string, current: Here, left: Here) => void): void;
  onSync(callback: () => void): void;
  list<T>(choose: (id: string, here: Here) => T): T[];
}

/** 1.5 is CommonJS: there the default export is all there is; later versions have none. */
declare const phoenix: { Socket: typeof Socket; Presence: typeof Presence };
export default phoenix;
