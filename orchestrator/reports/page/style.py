"""The page's style sheet. Without it, as under a strict policy, the page is plain but whole."""

STYLE = """
:root{color-scheme:light dark;--ink:#1b2631;--soft:#516070;--line:#dfe5eb;--card:#fff;--back:#f4f6f8;
--good:#1f7a50;--warn:#8a5a00;--bad:#b3261e;--goodb:#e5f4ec;--warnb:#fdf3dc;--badb:#fbe9e7;--code:#eef1f4}
@media (prefers-color-scheme:dark){:root{--ink:#e7edf3;--soft:#a3b1bf;--line:#2c3742;--card:#19212a;--back:#11171d;
--good:#6fd3a0;--warn:#f0c060;--bad:#ff9b91;--goodb:#15302455;--warnb:#3a2d0f88;--badb:#3f1a1788;--code:#232d37}}
*{box-sizing:border-box}
body{font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif;margin:0;color:var(--ink);
background:var(--back)}
header,main,footer{max-width:68rem;margin:0 auto;padding:0 1rem}
header{padding-top:1.5rem;padding-bottom:.75rem}footer{padding-bottom:2rem;color:var(--soft);font-size:.85rem}
h1{font-size:1.6rem;line-height:1.25;margin:0}h2{font-size:1.3rem;margin:2rem 0 .5rem}
h3{font-size:1.1rem;margin:1.75rem 0 .5rem}h4{font-size:.95rem;margin:0 0 .25rem}.card>h3{margin:0 0 .4rem}
.grid+.grid{margin-top:.75rem}
h1,h2,h3,h4,li,p,dd,code{overflow-wrap:anywhere}
.hide{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)}
p{margin:.25rem 0}.soft{color:var(--soft)}
.grid{display:grid;gap:.75rem;grid-template-columns:minmax(0,1fr)}
.card{background:var(--card);border:1px solid var(--line);border-radius:.6rem;padding:.8rem 1rem;min-width:0}
.say{border-left:.35rem solid var(--soft)}.say p:first-child{font-size:1.2rem;font-weight:650;line-height:1.35}
.say.good{background:var(--goodb);border-left-color:var(--good)}.good b{color:var(--good)}
.say.warn{background:var(--warnb);border-left-color:var(--warn)}.warn b{color:var(--warn)}
.say.bad{background:var(--badb);border-left-color:var(--bad)}.bad b{color:var(--bad)}
.rehearsal{border:2px dashed var(--warn)}
ul{margin:.25rem 0;padding-left:1.1rem}ul.todo{list-style:none;padding:0}.todo li+li{margin-top:.6rem}
code{font:13px/1.45 ui-monospace,"SF Mono",Menlo,Consolas,"DejaVu Sans Mono",monospace}
.todo code{display:block;background:var(--code);border-radius:.35rem;padding:.3rem .5rem;margin-top:.15rem;
user-select:all;-webkit-user-select:all}code span{display:inline-block;max-width:100%}
.sums{display:flex;flex-wrap:wrap;gap:.25rem 1.75rem;margin:1.25rem 0 0;padding:0}
.sums div{display:flex;flex-direction:column-reverse}.sums dt{color:var(--soft);font-size:.85rem}
.sums dd{margin:0;font-size:1.3rem;font-weight:650;font-variant-numeric:tabular-nums;line-height:1.2}
svg[role=img]{display:block;width:100%;height:auto}
.key{display:flex;flex-wrap:wrap;gap:.1rem .9rem;list-style:none;padding:0;margin:.15rem 0;font-size:.85rem;
color:var(--soft)}.key svg{margin-right:.35rem}
details{font-size:.88rem;margin-top:.35rem}summary{cursor:pointer;color:var(--soft)}summary h3{display:inline}
.runs{margin-top:1.75rem;font-size:1em}
summary:focus-visible,.wide:focus-visible{outline:2px solid #3d7de0;outline-offset:2px}
.wide{overflow-x:auto}
table{border-collapse:collapse;width:100%}
th,td{text-align:left;padding:.3rem .7rem .3rem 0;border-bottom:1px solid var(--line);vertical-align:top}
th{font-weight:600;color:var(--soft);font-size:.85rem;overflow-wrap:normal}
.n,.figures td+td,.figures th+th{text-align:right}.n,.figures td{font-variant-numeric:tabular-nums;white-space:nowrap}
td{overflow-wrap:break-word}td:first-child,td:last-child{overflow-wrap:anywhere;min-width:7rem}td.n{min-width:0}
@media (min-width:56rem){.grid.two{grid-template-columns:repeat(2,minmax(0,1fr))}
.grid.three{grid-template-columns:repeat(3,minmax(0,1fr))}.first{grid-template-columns:5fr 6fr}}
@media print{:root{font-size:12px}body{background:#fff;font-size:11px}
.card,svg,tr{break-inside:avoid}h2,h3{break-after:avoid}
.grid.two{grid-template-columns:repeat(2,minmax(0,1fr))}.grid.three{grid-template-columns:repeat(3,minmax(0,1fr))}
.card{padding:.4rem .6rem}details:not([open]){display:none}header,main,footer{max-width:none}}
""".strip()
