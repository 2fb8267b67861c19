// The theme puts wide tables into boxes that scroll. Without a mouse, a box must take the focus to scroll.
window.addEventListener("load", () => {
  const sizes = new ResizeObserver(boxes => {
    for (const { target } of boxes) {
      if (target.scrollWidth > target.clientWidth) target.tabIndex = 0
      else target.removeAttribute("tabindex")
    }
  })
  for (const box of document.querySelectorAll(".md-typeset__scrollwrap")) sizes.observe(box)
})
