import { lazy, Suspense, useEffect } from "react";
import { Banners } from "./shell/Banners";
import { Header } from "./shell/Header";
import { listen } from "./state/listen";
import { useReview, type View } from "./state/store";
import { StatusLine } from "./ui/StatusLine";

const VIEWS: Record<View, ReturnType<typeof lazy>> = {
  gallery: lazy(() => import("./gallery/GalleryView")),
  cell: lazy(() => import("./cell/CellView")),
  map: lazy(() => import("./map/MapView")),
  reading: lazy(() => import("./reading/ReadingView")),
};

export function App() {
  const trouble = useReview((s) => s.trouble);
  const name = useReview((s) => s.study?.name);
  const view = useReview((s) => s.view);

  useEffect(() => listen(useReview), []);
  useEffect(() => {
    if (name !== undefined) document.title = `${name} · Perikarya`;
  }, [name]);

  if (trouble !== null) return <Trouble why={trouble} />;
  if (name === undefined) return <p className="waiting muted">Opening the study …</p>;
  const Shown = VIEWS[view];
  return (
    <div className="page">
      <Header />
      <Banners />
      <main className="view" id="view" tabIndex={-1}>
        <Suspense fallback={<p className="waiting muted">Loading …</p>}>
          <Shown />
        </Suspense>
      </main>
      <footer className="footer">
        <StatusLine />
      </footer>
    </div>
  );
}

function Trouble({ why }: { why: string }) {
  return (
    <main className="trouble">
      <h1>The page cannot open the study</h1>
      <p role="alert">{why}</p>
    </main>
  );
}
