// What scrolls sideways can be reached by keyboard. Some browsers make it so by themselves, some do not.
(function () {
  "use strict";
  var boxes = "mjx-container, div.math, figure, pre, .pst-scrollable-table-container, div.output";
  function mark() {
    document.querySelectorAll(boxes).forEach(function (box) {
      var style = getComputedStyle(box);
      var scrolls = box.scrollWidth > box.clientWidth + 1 && /auto|scroll/.test(style.overflowX);
      if (scrolls) box.tabIndex = 0;
      else if (box.getAttribute("tabindex") === "0") box.removeAttribute("tabindex");
    });
  }
  addEventListener("load", function () {
    mark();
    if (window.MathJax && MathJax.startup && MathJax.startup.promise) MathJax.startup.promise.then(mark);
  });
  addEventListener("resize", mark);
  document.addEventListener("toggle", mark, true);
})();
