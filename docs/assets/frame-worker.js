// A worker for pages that are opened from a folder, where browsers allow none: its script runs in a hidden frame.
// The theme's search asks for one by this name, and says by it that the page is no page of a server.
if (location.protocol === "file:") {
  window.IFrameWorker = class extends EventTarget {
    constructor(url) {
      super();
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      document.body.append(this.frame);
      const inside = this.frame.contentWindow;
      inside.document.open();
      inside.document.write("<html><body></body></html>");
      inside.document.close();
      inside.postMessage = (data) => setTimeout(() => this.dispatchEvent(new MessageEvent("message", { data })));
      const load = (source) =>
        new Promise((resolve, reject) => {
          const script = inside.document.createElement("script");
          script.src = source;
          script.onload = resolve;
          script.onerror = reject;
          inside.document.body.append(script);
        });
      inside.importScripts = (...sources) =>
        sources.reduce((before, source) => before.then(() => load(new URL(source, url))), Promise.resolve());
      this.inside = inside;
      this.loaded = load(new URL(url, document.baseURI));
    }
    postMessage(data) {
      const event = new MessageEvent("message", { data }); // later, as a worker would: who asks may not listen yet
      this.loaded.then(() => setTimeout(() => this.inside.dispatchEvent(event)));
    }
    terminate() {
      this.frame.remove();
    }
  };
  window.Worker = window.IFrameWorker;
}
